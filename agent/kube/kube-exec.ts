import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { isDeadline } from '../base/clock';
import type { Deps } from '../base/deps';
import { AgentError, invalid, systemCode } from '../base/errors';
import { Secret } from '../base/secret';
import type { KubeConfigSection } from './kube-config-section';

/** A program that a kubeconfig names to obtain credentials, e.g. a cloud's token helper. */
export interface ExecPlugin {
  readonly apiVersion: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** What it is told of the cluster, where it asks for that. */
  readonly cluster: Readonly<Record<string, string | undefined>> | undefined;
}

interface PluginAnswer {
  readonly token: Secret<string> | undefined;
  readonly client: { readonly certificatePem: Buffer; readonly keyPem: Secret<Buffer> } | undefined;
  /** Epoch milliseconds; undefined means until the server refuses it. */
  readonly expiresAt: number | undefined;
}

const API_VERSIONS = ['client.authentication.k8s.io/v1', 'client.authentication.k8s.io/v1beta1'];
const MAX_OUTPUT_BYTES = 1024 * 1024;
/** Cloud helpers ask the network, which may take longer than a request of ours waits; one that waits for a person never answers. */
const TIMEOUT_MS = 60_000;

/**
 * Reads `exec` of a kubeconfig's user.
 *
 * @throws AgentError ERR_CONFIG.
 * @see Kubernetes documentation, "client-go credential plugins".
 */
export function readExecPlugin(
  section: KubeConfigSection,
  cluster: NonNullable<ExecPlugin['cluster']>,
): ExecPlugin {
  const apiVersion = section.need('apiVersion');
  if (!API_VERSIONS.includes(apiVersion))
    throw section.refuse('apiVersion', `must be ${API_VERSIONS.join(' or ')}`);
  if (section.text('interactiveMode') === 'Always')
    throw section.refuse('interactiveMode', 'must not be Always: the process is not interactive');
  const command = section.need('command');
  const args = section.list('args').map((arg) => {
    if (typeof arg !== 'string') throw section.refuse('args', 'must be strings');
    return arg;
  });
  const env = section.list('env').map((each) => {
    const { name, value } = (each ?? {}) as { name?: unknown; value?: unknown };
    if (typeof name !== 'string' || typeof value !== 'string')
      throw section.refuse('env', 'must be pairs of name and value');
    return [name, value] as const;
  });
  return {
    apiVersion,
    // A path is relative to the kubeconfig, a bare name is looked for in PATH.
    command: command.includes('/') ? resolve(section.dir, command) : command,
    args,
    env: Object.fromEntries(env),
    cluster: section.value('provideClusterInfo') === true ? cluster : undefined,
  };
}

type Env = Readonly<Record<string, string | undefined>>;

/**
 * Gives the plugin's answer: the last one until it expires (or for good, where it does not say), else that of a new run. One run at a time,
 * which everybody waits for and which ends with the last who does, unless it was only their time that ran out: then it goes on for the next
 * who asks. `renew` runs it in any case.
 *
 * @param caOf  The roots of the cluster, for a plugin that asks to be told of it.
 */
export function createPluginRunner(
  plugin: ExecPlugin,
  caOf: (() => Promise<Buffer>) | undefined,
  env: Env,
  deps: Deps,
): (renew: boolean, signal: AbortSignal) => Promise<PluginAnswer> {
  let last: PluginAnswer | undefined;
  let running:
    | { readonly answer: Promise<PluginAnswer>; readonly stop: AbortController; waiting: number }
    | undefined;
  const start = () => {
    const stop = new AbortController();
    const answer = (async () => runExecPlugin(plugin, await caOf?.(), env, deps, stop.signal))();
    const run = { answer, stop, waiting: 0 };
    const over = () => {
      if (running === run) running = undefined;
    };
    answer.then((value) => {
      last = value;
      over();
    }, over);
    return run;
  };
  return async (renew, signal) => {
    const isGood =
      last !== undefined && (last.expiresAt === undefined || last.expiresAt > deps.clock.now());
    if (last && isGood && !renew) return last;
    running ??= start();
    const run = running;
    run.waiting += 1;
    const leave = () => {
      run.waiting -= 1;
      if (run.waiting > 0 || isDeadline(signal)) return;
      if (running === run) running = undefined;
      run.stop.abort();
    };
    return untilAborted(run.answer, signal, `run ${plugin.command}`, leave);
  };
}

/** As `work`, or ERR_ABORTED as soon as the signal fires; `left` is called in that case. */
function untilAborted<T>(
  work: Promise<T>,
  signal: AbortSignal,
  what: string,
  left: () => void,
): Promise<T> {
  return new Promise((done, failed) => {
    const aborted = () => {
      left();
      failed(new AgentError('ERR_ABORTED', `${what}: aborted`));
    };
    if (signal.aborted) return aborted();
    signal.addEventListener('abort', aborted, { once: true });
    work.then(done, failed).finally(() => signal.removeEventListener('abort', aborted));
  });
}

/**
 * Runs the plugin: its arguments go to it as they are, without a shell, and standard input is closed.
 *
 * @throws AgentError ERR_TOKEN (retry slow). What it wrote is in no message: that may hold a credential.
 */
async function runExecPlugin(
  plugin: ExecPlugin,
  caPem: Buffer | undefined,
  env: Env,
  deps: Deps,
  signal: AbortSignal,
): Promise<PluginAnswer> {
  const cluster = plugin.cluster && {
    ...plugin.cluster,
    'certificate-authority-data': caPem?.toString('base64'),
  };
  const info = {
    apiVersion: plugin.apiVersion,
    kind: 'ExecCredential',
    spec: { interactive: false, ...(cluster && { cluster }) },
  };
  const output = await run(
    plugin,
    { ...env, ...plugin.env, KUBERNETES_EXEC_INFO: JSON.stringify(info) },
    signal,
  );
  const answer = readAnswer(output, plugin);
  if (answer.expiresAt !== undefined && answer.expiresAt <= deps.clock.now()) {
    throw refuse(plugin, 'expirationTimestamp', 'must lie ahead');
  }
  return answer;
}

function run(
  plugin: ExecPlugin,
  env: Record<string, string | undefined>,
  signal: AbortSignal,
): Promise<string> {
  return new Promise((done, failed) => {
    const options = {
      env,
      signal,
      timeout: TIMEOUT_MS,
      maxBuffer: MAX_OUTPUT_BYTES,
      shell: false,
      encoding: 'utf8',
      killSignal: 'SIGKILL',
    } as const;
    const child = execFile(plugin.command, [...plugin.args], options, (caught, stdout) => {
      if (!caught) return done(stdout);
      if (signal.aborted)
        return failed(new AgentError('ERR_ABORTED', `run ${plugin.command}: aborted`));
      const what = caught.killed
        ? `no answer within ${TIMEOUT_MS / 1_000} s`
        : (systemCode(caught) ??
          (typeof caught.code === 'number' ? `it ended with status ${caught.code}` : 'it failed'));
      failed(
        new AgentError('ERR_TOKEN', `run ${plugin.command} for a Kubernetes credential: ${what}`, {
          retry: 'slow',
          hint: 'run it by hand with the same arguments to see what it says',
        }),
      );
    });
    child.stdin?.end();
  });
}

function readAnswer(output: string, plugin: ExecPlugin): PluginAnswer {
  const { apiVersion, kind, status } = parseObject(output, plugin);
  if (kind !== 'ExecCredential' || apiVersion !== plugin.apiVersion) {
    throw refuse(plugin, 'kind', `must be ExecCredential of ${plugin.apiVersion}`);
  }
  const fields = (status ?? {}) as Record<string, unknown>;
  const text = (name: string): string | undefined => {
    const value = fields[name];
    if (value === undefined || value === null || value === '') return undefined;
    if (typeof value !== 'string') throw refuse(plugin, `status.${name}`, 'must be a string');
    return value;
  };
  const [token, certificate, key, expires] = [
    'token',
    'clientCertificateData',
    'clientKeyData',
    'expirationTimestamp',
  ].map(text);
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token))
    throw refuse(plugin, 'status.token', 'must be one word of ASCII');
  if ((certificate === undefined) !== (key === undefined))
    throw refuse(plugin, 'status.clientKeyData', 'must come with clientCertificateData');
  if (token === undefined && certificate === undefined)
    throw refuse(plugin, 'status', 'must hold a token or a client certificate');
  const expiresAt = expires === undefined ? undefined : Date.parse(expires);
  if (Number.isNaN(expiresAt))
    throw refuse(plugin, 'status.expirationTimestamp', 'must be an RFC 3339 time');
  return {
    token: token === undefined ? undefined : new Secret(token),
    client:
      certificate === undefined || key === undefined
        ? undefined
        : { certificatePem: Buffer.from(certificate), keyPem: new Secret(Buffer.from(key)) },
    expiresAt,
  };
}

function parseObject(output: string, plugin: ExecPlugin): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(output);
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {
    // The parser's message would quote the output, which may hold a token.
  }
  throw refuse(plugin, 'output', 'must be a JSON object');
}

function refuse(plugin: ExecPlugin, field: string, rule: string): AgentError {
  return invalid('ERR_TOKEN', `answer of ${plugin.command}: ${field}`, rule, { retry: 'slow' });
}
