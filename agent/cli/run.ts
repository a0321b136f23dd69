import { createMetrics } from '../admin/metrics';
import { type Agent, type AgentDeps, startAgent } from '../agent';
import { systemClock, withDeadline } from '../base/clock';
import { AgentError } from '../base/errors';
import { createLogger, type Logger } from '../base/log';
import { systemRandom } from '../base/random';
import { trimMemory } from '../base/trim-memory';
import type { LoadedConfig } from '../config/config';
import { loadConfig } from '../config/load';
import type { Flags } from '../config/sources';
import { formatSpiffeId } from '../identity/spiffe-id';
import { VERSION } from '../version';
import { neutraliseEnvironment, refuseDangerousEnvironment } from './environment';
import { EXIT_CODES } from './exit-code';
import { tellLastWordsTo } from './process-guard';
import type { Exit, Terminal } from './terminal';

/** What an orderly end may take; the rest of a second is for the process itself. */
const STOP_MS = 800;
/** A terminal or a supervisor that signals the whole group, and a parent that passes it on: both mean the same wish. */
const SAME_STOP_MS = 250;

/**
 * `keyturn run`: the agent, until a signal ends it.
 *
 * @returns the exit code.
 * @throws  AgentError where it cannot start.
 */
export async function run(flags: Flags, terminal: Terminal): Promise<number> {
  refuseDangerousEnvironment(terminal.env);
  const loaded = await loadConfig({ flags, env: terminal.env, cwd: terminal.cwd });
  const { logLevel: level, logFormat: format } = loaded.config;
  const log = createLogger({ level, format, write: (line) => terminal.err(`${line}\n`), now: systemClock.now });
  tellLastWordsTo((event, error, stack) => log.error(event, { cause: error, stack }));
  neutraliseEnvironment(terminal.env, log);
  const signals = watchSignals(terminal.exit);
  try {
    return await runUntilSignal(loaded, { clock: systemClock, random: systemRandom, log, metrics: createMetrics() }, signals);
  } catch (caught) {
    const error = AgentError.from(caught);
    if (format === 'text') throw error;
    // Whoever reads the log as JSON must find the end in it.
    log.error('the agent cannot start', { cause: error });
    return EXIT_CODES[error.code];
  } finally {
    signals.close();
  }
}

async function runUntilSignal(loaded: LoadedConfig, deps: AgentDeps, signals: Signals): Promise<number> {
  const { log } = deps;
  const { config } = loaded;
  log.info('agent starting', { version: VERSION, pid: process.pid, id: config.id && formatSpiffeId(config.id), ca: config.ca.join(',') });
  const starting = startAgent(loaded, deps);
  const started = await Promise.race([starting, signals.stop]);
  if (typeof started !== 'string') signals.onHangup(() => rotate(started, log));
  const ending = new AbortController();
  void trimMemory(systemClock, ending.signal);
  const signal = await signals.stop;
  ending.abort();
  log.info('agent stopping', { signal });
  await withDeadline(systemClock, STOP_MS, 'stop', undefined, async () => (await starting).close()).catch((caught: unknown) => {
    // The process ends now in any case; sockets that stay behind are replaced at the next start.
    log.warn('not everything ended in time', { cause: AgentError.from(caught) });
  });
  log.info('agent stopped', {});
  return 0;
}

function rotate(agent: Agent, log: Logger): void {
  agent.view.rotate({ wait: false, reason: 'SIGHUP' }, new AbortController().signal).catch((caught: unknown) => {
    log.warn('renewal asked for by SIGHUP failed', { cause: AgentError.from(caught) });
  });
}

interface Signals {
  /** Resolves with the first of SIGTERM and SIGINT. One that comes a while later ends the process on the spot. */
  readonly stop: Promise<NodeJS.Signals>;
  /** From now on; a SIGHUP before the agent has started is ignored, as its first certificate is new anyway. */
  onHangup(listener: () => void): void;
  close(): void;
}

function watchSignals(exit: Exit): Signals {
  let hangup: (() => void) | undefined;
  const onHangup = () => hangup?.();
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
    },
    close: () => {
      process.off('SIGHUP', onHangup).off('SIGTERM', onStop).off('SIGINT', onStop);
    },
  };
}
