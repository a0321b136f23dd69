import { Command, Option } from 'commander';
import { invalid } from '../base/errors';
import { readSetting } from '../config/load';
import type { SettingName } from '../config/options';
import { hostPort } from '../config/value-types';
import type { WebhookServiceConfig } from '../services/webhook-service';
import { type CommandContext, type CommandOptions, onRun } from './command';
import { list } from './flag-values';
import { addInjectFlags, readInjectFlags } from './inject-flags';
import { addSettings, settingFlags, settingOf } from './settings-options';
import type { Terminal } from './terminal';

const SETTINGS: readonly SettingName[] = ['kubeconfig', 'config', 'log-level', 'log-format'];

/** `keyturn webhook`. */
export function addWebhook(program: Command, context: CommandContext): void {
  const webhook = program
    .command('webhook')
    .summary('Inject the agent into pods at admission')
    .description(
      'Answer API servers as a mutating admission webhook: each pod that they send becomes what keyturn inject would make of it with the flags after --, until SIGTERM or SIGINT. Replicas share a root in a Secret, and keep the caBundle of the configuration up to date.',
    )
    .addOption(
      new Option('--listen <host:port>', 'Where API servers ask').default('127.0.0.1:8443'),
    )
    .option(
      '--server-names <names>',
      'Host names of the webhook, with commas (default: keyturn-webhook.NAMESPACE.svc)',
    )
    .addOption(
      new Option(
        '--configuration <name>',
        'MutatingWebhookConfiguration whose caBundle it keeps',
      ).default('keyturn-webhook'),
    )
    .addOption(
      new Option(
        '--root-secret <name>',
        'Secret of its root; it must be there, and may be empty',
      ).default('keyturn-webhook-root'),
    )
    .option(
      '--namespace <name>',
      'Namespace of that Secret (default: that of the kubeconfig or the pod)',
    )
    .addOption(
      new Option(
        '--admin-address <host:port>',
        'Where health and metrics are served over HTTP',
      ).default('127.0.0.1:15014'),
    )
    .argument('[flags...]', 'What to inject: flags of keyturn inject')
    .usage('[options] [-- flags of keyturn inject]');
  addSettings(webhook, SETTINGS).addHelpText(
    'after',
    `
Examples:
  keyturn webhook --listen 0.0.0.0:8443 -- --image keyturn:0.1.0 --ca istiod
  keyturn webhook -- --ca kubernetes-csr --signer-name clusterissuers.cert-manager.io/mesh
  kubectl apply -k scripts/deploy/webhook && kubectl label namespace shop keyturn.dev/inject=true`,
  );
  onRun(webhook, context, (options, [flags]) =>
    serveWebhook(options, flags as readonly string[], context.terminal),
  );
}

async function serveWebhook(
  options: CommandOptions,
  injection: readonly string[],
  terminal: Terminal,
): Promise<number> {
  const config = await readConfig(options, injection, terminal);
  const setting = <N extends SettingName>(name: N) => settingOf(name, options.flags, terminal);
  const [{ runDaemon }, { startWebhookService }] = await Promise.all([
    import('./daemon'),
    import('../services/webhook-service'),
  ]);
  return runDaemon(
    {
      name: 'webhook',
      scope: 'webhook',
      logLevel: await setting('log-level'),
      logFormat: await setting('log-format'),
      facts: { configuration: config.configuration },
      start: async (deps) => {
        const service = await startWebhookService(config, terminal.env, deps);
        deps.log.info('webhook started', { address: service.address, admin: service.adminAddress });
        return service;
      },
    },
    terminal,
  );
}

async function readConfig(
  options: CommandOptions,
  injection: readonly string[],
  terminal: Terminal,
): Promise<WebhookServiceConfig> {
  const { given, flags } = options;
  const text = (key: string) => given[key] as string | undefined;
  const [{ injectPod }, inject] = await Promise.all([
    import('../inject/inject-pod'),
    readInjection(injection, terminal),
  ]);
  // What no pod could have is found out now, not by the first of them.
  injectPod(PROBE, inject);
  return {
    listen: hostPort.parse(text('listen')!, 'flag --listen'),
    adminAddress: hostPort.parse(text('adminAddress')!, 'flag --admin-address'),
    // Which hosts there may be is the server's to say.
    serverNames:
      text('serverNames') === undefined
        ? undefined
        : list(text('serverNames')!, 'flag --server-names', (name) => name),
    namespace:
      text('namespace') === undefined
        ? undefined
        : objectName(text('namespace')!, 'flag --namespace'),
    secret: objectName(text('rootSecret')!, 'flag --root-secret'),
    configuration: objectName(text('configuration')!, 'flag --configuration'),
    kubeconfig: await readSetting('kubeconfig', { flags, env: terminal.env, cwd: terminal.cwd }),
    inject: (pod) => injectPod(pod, inject),
  };
}

const PROBE = { spec: { containers: [{ name: 'main' }] } };

/** The flags after --, which are another command's. */
async function readInjection(flags: readonly string[], terminal: Terminal) {
  const parsed = addInjectFlags(new Command('inject'))
    .exitOverride()
    .configureOutput({ outputError: () => undefined })
    .allowExcessArguments(false)
    .parse(flags, { from: 'user' })
    .opts();
  return readInjectFlags(parsed, settingFlags(parsed), terminal);
}

/** As Kubernetes names its objects. */
function objectName(text: string, field: string): string {
  if (/^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/.test(text)) return text;
  throw invalid(
    'ERR_CONFIG',
    field,
    'must be a name of a Kubernetes object: lower-case letters, digits, "-" and "."',
  );
}
