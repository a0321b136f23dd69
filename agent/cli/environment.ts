import { AgentError } from '../base/errors';
import type { Logger } from '../base/log';
import { BUN_VERSION } from '../base/runtime';

/** Options of Node that let others into a process that holds keys, or let its TLS be read or misled. */
const DANGEROUS_NODE_OPTIONS =
  /^(?:--inspect(?:-.*)?|--debug(?:-.*)?|-r|--require|--import|--(?:experimental-)?loader|--tls-keylog|--tls-min-v1\.[01]|--insecure-http-parser|--heapsnapshot-signal|--heapsnapshot-near-heap-limit|--report-on-signal|--env-file(?:-if-exists)?)(?:=.*)?$/;

/** What Bun reads, which runs the executable: any flag of its own, code to load first, who is let in to look, where a crash is reported to. */
const DANGEROUS_TO_BUN = [
  'BUN_OPTIONS',
  'BUN_INSPECT',
  'BUN_INSPECT_CONNECT_TO',
  'BUN_INSPECT_NOTIFY',
  'BUN_INSPECT_PRELOAD',
  'BUN_CRASH_REPORT_URL',
  'BUN_ENABLE_CRASH_REPORTING',
];

/** Variables that are taken away before anything can read them, and why. */
const NEUTRALISED: readonly { readonly name: string; readonly level: 'info' | 'warn'; readonly event: string }[] = [
  { name: 'NODE_TLS_REJECT_UNAUTHORIZED', level: 'warn', event: 'environment variable ignored: certificates are always verified' },
  { name: 'SSLKEYLOGFILE', level: 'warn', event: 'environment variable ignored: keys of TLS sessions are not written down' },
  // Set for the whole machine in many images: no reason to worry anybody.
  { name: 'NODE_EXTRA_CA_CERTS', level: 'info', event: 'environment variable ignored: every connection names its own roots' },
];

/**
 * Refuses to hold keys in a process into which the environment has already let others: what LD_PRELOAD or NODE_OPTIONS loaded cannot be
 * taken out again. HTTP(S)_PROXY is left alone: nothing here goes through a proxy.
 *
 * @throws AgentError ERR_CONFIG naming the variable.
 */
export function refuseDangerousEnvironment(env: NodeJS.ProcessEnv): void {
  for (const name of ['LD_PRELOAD', 'LD_AUDIT']) {
    if (env[name]) throw refuse(name, 'must not be set: its library runs inside a process that holds keys');
  }
  for (const name of BUN_VERSION === undefined ? [] : DANGEROUS_TO_BUN) {
    if (env[name]) throw refuse(name, 'must not be set: it lets others into a process that holds keys');
  }
  const option = (env.NODE_OPTIONS ?? '').split(/[\s"']+/).find((each) => DANGEROUS_NODE_OPTIONS.test(each));
  if (option !== undefined) throw refuse('NODE_OPTIONS', `must not have ${option.split('=')[0]} in a process that holds keys`);
}

/** Takes variables away that would weaken the agent, and says so. */
export function neutraliseEnvironment(env: NodeJS.ProcessEnv, log: Logger): void {
  for (const { name, level, event } of NEUTRALISED) {
    const value = env[name];
    if (value === undefined) continue;
    delete env[name];
    if (value !== '' && !(name === 'NODE_TLS_REJECT_UNAUTHORIZED' && value !== '0')) log[level](event, { variable: name });
  }
}

function refuse(name: string, rule: string): AgentError {
  return new AgentError('ERR_CONFIG', `environment ${name}: ${rule}`, {
    field: `environment ${name}`,
    rule,
    hint: `start keyturn without it, e.g. env -u ${name} keyturn run ...`,
  });
}
