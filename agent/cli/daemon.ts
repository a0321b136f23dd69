import { type AgentMetrics, createMetrics } from '../admin/metrics';
import { systemClock, withDeadline } from '../base/clock';
import { AgentError } from '../base/errors';
import type { Health } from '../base/health';
import { createLogger, type Facts, type LogFormat, type LogLevel } from '../base/log';
import { makeStderrNonblocking } from '../base/nonblocking-stderr';
import { systemRandom } from '../base/random';
import { trimMemory } from '../base/trim-memory';
import { VERSION } from '../base/version';
import { keysInTheMaking } from '../identity/keys';
import type { AgentDeps } from '../services/agent';
import { tellOfIgnored } from './environment';
import { EXIT_CODES } from './exit-code';
import { tellLastWordsTo } from './process-guard';
import type { Exit, Terminal } from './terminal';

/** What an orderly end may take; the rest of a second is for the process itself. */
const STOP_MS = 800;
/** A terminal or a supervisor that signals the whole group, and a parent that passes it on: both mean the same wish. */
const SAME_STOP_MS = 250;

/** A process that runs until a signal ends it. */
export interface DaemonSpec {
  /** In the log: `agent starting`. */
  readonly name: string;
  /** Of its log lines, e.g. `agent`. */
  readonly scope: string;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
  /** Said when it starts. */
  readonly facts: Facts;
  /**
   * @param stopping  Fires when the process is to end: what has not begun by then need not.
   * @throws AgentError where it cannot start; nothing is left behind then.
   */
  readonly start: (deps: AgentDeps, stopping: AbortSignal) => Promise<RunningDaemon>;
}

export interface RunningDaemon {
  /** What SIGHUP means; ignored where undefined. */
  readonly onHangup?: () => void;
  /** For the service manager that has started this process, if one has. */
  readonly health: Health;
  close(): Promise<void>;
}

/**
 * Runs a daemon until SIGTERM or SIGINT ends it.
 *
 * @returns the exit code.
 * @throws  AgentError where it cannot start.
 */
export async function runDaemon(spec: DaemonSpec, terminal: Terminal): Promise<number> {
  const { name, scope, logLevel: level, logFormat: format } = spec;
  makeStderrNonblocking();
  const log = createLogger(
    { level, format, write: (line) => terminal.err(`${line}\n`), now: systemClock.now },
    scope,
  );
  tellLastWordsTo((event, error, stack) => log.error(event, { cause: error, stack }));
  tellOfIgnored(terminal.ignoredVariables, log);
  const signals = watchSignals(terminal.exit);
  const metrics: AgentMetrics = createMetrics();
  try {
    return await runUntilSignal(
      spec,
      terminal.env,
      { clock: systemClock, random: systemRandom, log, metrics },
      signals,
    );
  } catch (caught) {
    const error = AgentError.from(caught);
    if (format === 'text') throw error;
    // Whoever reads the log as JSON must find the end in it.
    log.error(`the ${name} failed to start`, { cause: error });
    return EXIT_CODES[error.code];
  } finally {
    signals.close();
  }
}

async function runUntilSignal(
  spec: DaemonSpec,
  env: NodeJS.ProcessEnv,
  deps: AgentDeps,
  signals: Signals,
): Promise<number> {
  const { name, facts, start } = spec;
  const { log } = deps;
  log.info(`${name} starting`, { version: VERSION, pid: process.pid, ...facts });
  const stopping = new AbortController();
  void signals.stop.then(() => stopping.abort());
  const starting = start(deps, stopping.signal);
  const started = await Promise.race([starting, signals.stop]);
  if (typeof started !== 'string') signals.onHangup(() => started.onHangup?.());
  const manager = env.NOTIFY_SOCKET
    ? (await import('./service-manager')).createServiceManager(env, deps)
    : undefined;
  if (typeof started !== 'string') manager?.started(started.health);
  const ending = new AbortController();
  void trimMemory(systemClock, ending.signal);
  const signal = await signals.stop;
  ending.abort();
  log.info(`${name} stopping`, { signal });
  const told = manager?.stopping();
  const stopped = async () => {
    await (await starting).close();
    await Promise.allSettled(keysInTheMaking());
  };
  await withDeadline(systemClock, STOP_MS, 'stop', undefined, stopped).catch((caught: unknown) => {
    // The process ends now in any case; sockets that stay behind are replaced at the next start.
    log.warn('shutdown timed out', { cause: AgentError.from(caught) });
  });
  await told;
  log.info(`${name} stopped`, {});
  if (keysInTheMaking().length > 0) endBySignal(signal);
  return 0;
}

/** The runtime would wait for its threads, for seconds where one makes a key of RSA-4096; the kernel does not. */
function endBySignal(signal: NodeJS.Signals): void {
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
}

interface Signals {
  /** Resolves with the first of SIGTERM and SIGINT. One that comes a while later ends the process on the spot. */
  readonly stop: Promise<NodeJS.Signals>;
  /** From now on, and at once where a SIGHUP came while the daemon was starting: no wish is lost. */
  onHangup(listener: () => void): void;
  close(): void;
}

function watchSignals(exit: Exit): Signals {
  let wished = false;
  let hangup = () => {
    wished = true;
  };
  const onHangup = () => hangup();
  let stopped = (_: NodeJS.Signals): void => undefined;
  let stoppedAt: number | undefined;
  const stop = new Promise<NodeJS.Signals>((resolve) => {
    stopped = resolve;
  });
  const onStop = (signal: NodeJS.Signals, number: number) => {
    if (stoppedAt !== undefined && systemClock.now() - stoppedAt > SAME_STOP_MS) exit(128 + number);
    stoppedAt ??= systemClock.now();
    stopped(signal);
  };
  process.on('SIGHUP', onHangup).on('SIGTERM', onStop).on('SIGINT', onStop);
  return {
    stop,
    onHangup: (listener) => {
      hangup = listener;
      if (wished) listener();
    },
    close: () => {
      process.off('SIGHUP', onHangup).off('SIGTERM', onStop).off('SIGINT', onStop);
    },
  };
}
