import { type Command, Option } from 'commander';
import { AgentError, invalid } from '../base/errors';
import { readSetting } from '../config/load';
import type { SettingName } from '../config/options';
import { duration, hostPort } from '../config/value-types';
import { commandDeps } from './ca-state';
import { type CommandContext, type CommandOptions, onRun } from './command';
import { addSettings, settingOf } from './settings-options';
import type { Terminal } from './terminal';

const SETTINGS: readonly SettingName[] = [
  'signer-name',
  'trust-domain',
  'kubeconfig',
  'config',
  'log-level',
  'log-format',
];
/** What the log and `kubectl get` show in full. */
const MAX_REASON = 500;
const TTL = duration({ atLeast: '10m', atMost: '3650d' });

/** `keyturn approver`. */
export function addApprover(program: Command, context: CommandContext): void {
  const approver = addSettings(program.command('approver'), SETTINGS)
    .summary('Approve requests to a Kubernetes signer for the own identity')
    .description(
      'Approve the requests to a Kubernetes signer that ask for the one identity of their own service account, and deny others with the reason, until SIGTERM or SIGINT. Any number may run.',
    )
    .addOption(new Option('--min-ttl <duration>', 'Minimum lifetime to approve').default('10m'))
    .addOption(new Option('--max-ttl <duration>', 'Maximum lifetime to approve').default('24h'))
    .option('--require-pod', 'Deny tokens that are not bound to a pod')
    .option(
      '--allow-annotation <key...>',
      'Annotations that a request may carry; a risk: cert-manager makes a CA of experimental.cert-manager.io/request-is-ca',
    )
    .option(
      '--allow-label <key...>',
      'Labels that a request may carry; a risk where the signer acts on them',
    )
    .addOption(
      new Option(
        '--admin-address <host:port>',
        'Where health and metrics are served over HTTP',
      ).default('127.0.0.1:15014'),
    )
    .addHelpText(
      'after',
      '\nExample:\n  keyturn approver --signer-name clusterissuers.cert-manager.io/istio-ca',
    );
  addAcknowledge(approver, context);
  onRun(approver, context, (options) => approve(options, context.terminal));
}

/** Qualified names, as Kubernetes has them: `name` or `domain/name`. */
const METADATA_KEY = /^([a-z0-9]([-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?$/;

function metadataKeys(given: unknown, origin: string): readonly string[] {
  const keys = (given as readonly string[] | undefined) ?? [];
  for (const key of keys) {
    if (!METADATA_KEY.test(key))
      throw invalid(
        'ERR_CONFIG',
        origin,
        `must be a key such as example.org/name, not ${JSON.stringify(key)}`,
      );
  }
  return keys;
}

/** Not by commander, which would ask the subcommand for it too. */
function assertSigner(flags: CommandOptions['flags']): void {
  if (flags['signer-name'] !== undefined) return;
  const hint = 'name the signer, e.g. --signer-name clusterissuers.cert-manager.io/istio-ca';
  throw new AgentError('ERR_USAGE', "required option '--signer-name <name>' not specified", {
    hint,
  });
}

function addAcknowledge(approver: Command, context: CommandContext): void {
  const command = addSettings(approver.command('acknowledge'), ['kubeconfig', 'config'])
    .summary('Acknowledge a violation')
    .description(
      'Acknowledge the violation of a request, so that approvers are ready again. Needs the RBAC of an approver of its signer: get the request, update its approval, approve for the signer.',
    )
    .argument('<request>', 'Name of the CertificateSigningRequest')
    .requiredOption(
      '--reason <text>',
      'What was done about it, for the log of the approvers and the request',
    )
    .addHelpText(
      'after',
      '\nExample:\n  keyturn approver acknowledge csr-x7k2p --reason "issuer replaced, certificate in no trust store"',
    );
  onRun(command, context, async ({ given, flags }, [request]) => {
    const { terminal } = context;
    const [name, reason] = [String(request), String(given.reason).trim()];
    if (reason === '' || reason.length > MAX_REASON) {
      throw invalid('ERR_CONFIG', 'flag --reason', `must be 1 to ${MAX_REASON} characters`);
    }
    const kubeconfig = await readSetting('kubeconfig', {
      flags,
      env: terminal.env,
      cwd: terminal.cwd,
    });
    const [{ openKubeApi }, { acknowledge }] = await Promise.all([
      import('../kube/open-kube-api'),
      import('../approver/approval'),
    ]);
    const api = await openKubeApi(kubeconfig, terminal.env, commandDeps(terminal));
    try {
      const done = await acknowledge(api, name, reason);
      terminal.out(`${name}: ${done === 'already' ? 'was acknowledged before' : 'acknowledged'}\n`);
    } finally {
      await api.close();
    }
    return 0;
  });
}

async function approve({ given, flags }: CommandOptions, terminal: Terminal): Promise<number> {
  assertSigner(flags);
  const setting = <N extends SettingName>(name: N) => settingOf(name, flags, terminal);
  const minMs = TTL.parse(String(given.minTtl), 'flag --min-ttl');
  const maxMs = TTL.parse(String(given.maxTtl), 'flag --max-ttl');
  if (minMs > maxMs)
    throw invalid('ERR_CONFIG', 'flag --min-ttl', 'must not be more than --max-ttl');
  const signerName = await setting('signer-name');
  const trustDomain = await setting('trust-domain');
  const kubeconfig = await readSetting('kubeconfig', {
    flags,
    env: terminal.env,
    cwd: terminal.cwd,
  });
  const config = {
    signerName,
    trustDomain,
    kubeconfig,
    adminAddress: hostPort.parse(String(given.adminAddress), 'flag --admin-address'),
    minSeconds: minMs / 1_000,
    maxSeconds: maxMs / 1_000,
    requirePod: given.requirePod === true,
    allowedAnnotations: metadataKeys(given.allowAnnotation, 'flag --allow-annotation'),
    allowedLabels: metadataKeys(given.allowLabel, 'flag --allow-label'),
  };
  const [{ runDaemon }, { startApproverService }] = await Promise.all([
    import('./daemon'),
    import('../services/approver-service'),
  ]);
  return runDaemon(
    {
      name: 'approver',
      scope: 'approver',
      logLevel: await setting('log-level'),
      logFormat: await setting('log-format'),
      facts: { signer: signerName, trustDomain },
      start: async (deps) => {
        const service = await startApproverService(config, terminal.env, deps);
        deps.log.info('admin server listening', { address: service.adminAddress });
        return service;
      },
    },
    terminal,
  );
}
