import { type Command, Option } from 'commander';
import { invalid } from '../base/errors';
import { readSetting } from '../config/load';
import type { SettingName } from '../config/options';
import { duration, hostPort } from '../config/value-types';
import { type CommandContext, type CommandOptions, onRun } from './command';
import { refuseDangerousEnvironment } from './environment';
import { addSettings, settingOf } from './settings-options';
import type { Terminal } from './terminal';

const SETTINGS: readonly SettingName[] = ['signer-name', 'trust-domain', 'kubeconfig', 'config', 'log-level', 'log-format'];
const TTL = duration({ atLeast: '10m', atMost: '3650d' });

/** `keyturn approver`. */
export function addApprover(program: Command, context: CommandContext): void {
  const approver = addSettings(program.command('approver'), SETTINGS)
    .summary('Approve requests to a Kubernetes signer for the own identity')
    .description(
      'Approve the requests to a Kubernetes signer that ask for the one identity of their own service account, and deny others with the reason, until SIGTERM or SIGINT. Any number may run.',
    )
    .addOption(new Option('--min-ttl <duration>', 'Shortest life to approve').default('10m'))
    .addOption(new Option('--max-ttl <duration>', 'Longest life to approve').default('24h'))
    .option('--require-pod', 'Deny tokens that are not bound to a pod')
    .addOption(new Option('--admin-address <host:port>', 'Where health and metrics are served over HTTP').default('127.0.0.1:15014'))
    .addHelpText('after', '\nExample:\n  keyturn approver --signer-name clusterissuers.cert-manager.io/istio-ca');
  approver.options.find((option) => option.long === '--signer-name')?.makeOptionMandatory();
  onRun(approver, context, (options) => approve(options, context.terminal));
}

async function approve({ given, flags }: CommandOptions, terminal: Terminal): Promise<number> {
  refuseDangerousEnvironment(terminal.env);
  const setting = <N extends SettingName>(name: N) => settingOf(name, flags, terminal);
  const minMs = TTL.parse(String(given.minTtl), 'flag --min-ttl');
  const maxMs = TTL.parse(String(given.maxTtl), 'flag --max-ttl');
  if (minMs > maxMs) throw invalid('ERR_CONFIG', 'flag --min-ttl', 'must not be more than --max-ttl');
  const signerName = await setting('signer-name');
  const trustDomain = await setting('trust-domain');
  const kubeconfig = await readSetting('kubeconfig', { flags, env: terminal.env, cwd: terminal.cwd });
  const config = {
    signerName,
    trustDomain,
    kubeconfig,
    adminAddress: hostPort.parse(String(given.adminAddress), 'flag --admin-address'),
    minSeconds: minMs / 1_000,
    maxSeconds: maxMs / 1_000,
    requirePod: given.requirePod === true,
  };
  const [{ runDaemon }, { startApproverService }] = await Promise.all([import('./daemon'), import('../approver-service')]);
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
