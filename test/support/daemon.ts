import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { AgentStatus } from '../../agent/admin/agent-view';
import { callControl } from '../../agent/admin/control-client';
import { fetchText } from './fetch-text';
import { FORM, programCommand, UNSEEN } from './program';
import { until } from './until';

export interface DaemonOptions {
  /** Working directory: every default path is below it. Keep it short, a socket's path has 107 bytes. */
  readonly dir: string;
  /** The whole command line of another daemon than `keyturn run`; what follows for that one is not looked at then. */
  readonly args?: readonly string[];
  /** Replaces the identity `shop`/`cart` in `cluster.local`. Empty for none. */
  readonly identity?: readonly string[];
  /** Where certificates come from: `--ca builtin` unless given. */
  readonly source?: readonly string[];
  /** Further flags of `keyturn run`. */
  readonly flags?: readonly string[];
  /** Added to an environment that holds PATH and nothing else. */
  readonly env?: Readonly<Record<string, string>>;
  /** CommonJS that runs in the process before the program does. */
  readonly preload?: string;
  /** A program with arguments that ends by becoming the rest of its command line, e.g. `['/usr/bin/env', '-i']`. */
  readonly through?: readonly string[];
  /** Out of the terminal's reach: a Ctrl-C is then for the caller alone to pass on. */
  readonly detached?: boolean;
  /** Sees each line of standard error as it comes. */
  readonly onLine?: (line: string) => void;
}

/** One line of the daemon's log. */
export interface LogEvent {
  readonly time: string;
  readonly level: string;
  readonly scope: string;
  readonly event: string;
  readonly [fact: string]: unknown;
}

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** `keyturn run` as a process of its own, as a user has it. */
export interface Daemon {
  readonly pid: number;
  readonly dir: string;
  /** Absolute path of the SDS socket. */
  readonly sdsSocket: string;
  /** Everything logged so far, parsed; and whatever was on standard error that is no log line. */
  readonly events: readonly LogEvent[];
  readonly strayLines: readonly string[];
  /** Throws when the daemon has ended: with its exit code, its signal and its last words. */
  assertAlive(): void;
  /** Resolves with the first event, past or future, of that sentence for which `where` holds. Fails when the daemon ends before. */
  event(sentence: string | RegExp, where?: (event: LogEvent) => boolean): Promise<LogEvent>;
  /** Calls `listener` with each event from now on. */
  onEvent(listener: (event: LogEvent) => void): void;
  /** What `keyturn status --output json` prints, without a process for it. */
  status(): Promise<AgentStatus>;
  /** Resolves with the status once a certificate is in service. Fails when the daemon ends before. */
  ready(): Promise<AgentStatus>;
  /** Runs another command of keyturn in the same directory, e.g. `command('status', '--output', 'json')`. */
  command(...args: readonly string[]): Promise<Finished>;
  /** Fetches a path of the health and metrics port, e.g. `/healthz/ready`. */
  http(path: string): Promise<{ readonly status: number; readonly body: string }>;
  /** RssAnon of the process, bytes. */
  rssAnon(): number;
  /** Sends a signal and waits for the end. */
  kill(signal: NodeJS.Signals): Promise<Finished>;
  /** SIGTERM unless it has ended already. */
  stop(): Promise<Finished>;
  readonly finished: Promise<Finished>;
}

/** Far more than any machine takes, busy as it may be. */
const DEADLINE_MS = 60_000;

/** Starts the daemon and returns at once; `ready()` waits. Health and metrics take a free port. */
export function startDaemon(options: DaemonOptions): Daemon {
  const identity = options.identity ?? [
    '--trust-domain',
    'cluster.local',
    '--namespace',
    'shop',
    '--service-account',
    'cart',
  ];
  const source = options.source ?? ['--ca', 'builtin'];
  const fixed = ['--admin-address', '127.0.0.1:0', '--log-format', 'json', '--log-level', 'debug'];
  const args = options.args ?? ['run', ...source, ...identity, ...fixed, ...(options.flags ?? [])];
  const child = spawnKeyturn(args, options);
  return describeDaemon(child, options);
}

/** Runs one command of keyturn to its end. */
export async function runKeyturn(
  args: readonly string[],
  options: Pick<DaemonOptions, 'dir' | 'env'> & { readonly stdin?: string },
): Promise<Finished> {
  const child = spawnKeyturn(args, options);
  // A command that reads nothing may have ended before.
  child.stdin!.on('error', () => undefined).end(options.stdin ?? '');
  return collect(child);
}

function spawnKeyturn(
  args: readonly string[],
  options: Pick<DaemonOptions, 'dir' | 'env' | 'preload' | 'through' | 'detached'>,
): ChildProcess {
  const preload = options.preload === undefined ? undefined : join(options.dir, 'preload.cjs');
  if (preload) writeFileSync(preload, `${UNSEEN}\n${options.preload}`);
  const nodeFlags = preload ? ['--require', preload] : [];
  const [program, ...rest] = [
    ...(options.through ?? []),
    ...programCommand(FORM, nodeFlags),
    ...args,
  ];
  return spawn(program!, rest, {
    cwd: options.dir,
    env: {
      PATH: process.env.PATH,
      ...(preload && FORM === 'standalone' && { BUN_OPTIONS: `--preload ${preload}` }),
      ...options.env,
    },
    detached: options.detached ?? false,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
}

function describeDaemon(child: ChildProcess, options: DaemonOptions): Daemon {
  const events: LogEvent[] = [];
  const strayLines: string[] = [];
  const waiting = new Set<() => void>();
  const listeners: ((event: LogEvent) => void)[] = [];
  createInterface({ input: child.stderr! }).on('line', (line) => {
    options.onLine?.(line);
    const event = parseEvent(line);
    if (event) {
      events.push(event);
      for (const listener of listeners) listener(event);
    } else {
      strayLines.push(line);
    }
    for (const look of [...waiting]) look();
  });
  let ended: Finished | undefined;
  const finished = collect(child).then((result) => {
    ended = result;
    for (const look of [...waiting]) look();
    return result;
  });
  const assertAlive = () => {
    if (ended) throw new Error(obituary(ended));
  };
  const event: Daemon['event'] = (sentence, where = () => true) =>
    waitFor(
      `the event ${sentence}`,
      () => {
        const found = events.find(
          (each) =>
            (typeof sentence === 'string' ? each.event === sentence : sentence.test(each.event)) &&
            where(each),
        );
        if (!found && ended)
          throw new Error(`${obituary(ended)}\nwhile the event ${sentence} was waited for`);
        return found;
      },
      waiting,
    );
  const controlSocket = join(
    options.dir,
    flagValue(options.flags, '--control-socket') ?? 'var/run/keyturn/control.sock',
  );
  const status = () => callControl<AgentStatus>(controlSocket, 'GET', '/status');
  const kill = async (signal: NodeJS.Signals) => {
    if (!ended) child.kill(signal);
    return finished;
  };
  return {
    pid: child.pid!,
    dir: options.dir,
    sdsSocket: join(
      options.dir,
      flagValue(options.flags, '--sds-socket') ?? 'var/run/secrets/workload-spiffe-uds/socket',
    ),
    events,
    strayLines,
    assertAlive,
    event,
    onEvent: (listener) => listeners.push(listener),
    status,
    ready: () =>
      until('a ready agent', async () => {
        assertAlive();
        const now = await status().catch(() => undefined);
        return now?.ready && now;
      }),
    command: (...args) => runKeyturn(args, options),
    http: async (path) =>
      fetchText(`http://${(await event('admin server listening')).address}${path}`),
    rssAnon: () =>
      Number(/^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))![1]) *
      1024,
    kill,
    stop: () => kill('SIGTERM'),
    finished,
  };
}

const LAST_WORDS = 30;

function obituary({ code, signal, stderr }: Finished): string {
  const words = stderr.trimEnd().split('\n').slice(-LAST_WORDS).join('\n');
  return `keyturn ended with exit code ${code} and signal ${signal}; its last words:\n${words}`;
}

function collect(child: ChildProcess): Promise<Finished> {
  let [stdout, stderr] = ['', ''];
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  return new Promise((done, failed) => {
    child.on('error', failed);
    child.on('close', (code, signal) => done({ code, signal, stdout, stderr }));
  });
}

function parseEvent(line: string): LogEvent | undefined {
  try {
    const parsed: unknown = JSON.parse(line);
    return typeof parsed === 'object' && parsed !== null && 'event' in parsed
      ? (parsed as LogEvent)
      : undefined;
  } catch {
    return undefined;
  }
}

/** Resolves with what `look` finds, looking again whenever one of `waiting` is called. */
function waitFor<T>(what: string, look: () => T | undefined, waiting: Set<() => void>): Promise<T> {
  return new Promise((done, failed) => {
    const settle = (finish: () => void) => {
      clearTimeout(timer);
      waiting.delete(again);
      finish();
    };
    const again = () => {
      try {
        const found = look();
        if (found !== undefined) settle(() => done(found));
      } catch (caught) {
        settle(() => failed(caught));
      }
    };
    const timer = setTimeout(
      () => settle(() => failed(new Error(`${what} did not come within ${DEADLINE_MS / 1000} s`))),
      DEADLINE_MS,
    );
    waiting.add(again);
    again();
  });
}

function flagValue(flags: readonly string[] | undefined, name: string): string | undefined {
  const index = flags?.indexOf(name) ?? -1;
  return index === -1 ? undefined : flags![index + 1];
}
