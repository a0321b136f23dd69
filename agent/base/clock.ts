import { AgentError } from './errors';

/** Time as everything in the agent sees it. Tests hold a `TestClock`. */
export interface Clock {
  /** Wall-clock epoch milliseconds. */
  now(): number;
  /**
   * Resolves once `now() >= at` (epoch milliseconds, may be in the past: then in the next turn). A jump of the wall clock or a suspended
   * machine is noticed within a minute. Rejects with ERR_ABORTED when the signal fires.
   */
  sleepUntil(at: number, signal?: AbortSignal): Promise<void>;
}

/** A slice of sleep: timers count monotonic time, which stands still in suspend, so the wall clock is read again this often. */
const SLICE_MS = 30_000;

/** The machine's clock. Its timers never keep the process alive on their own account beyond a pending sleep. */
export const systemClock: Clock = {
  now: () => Date.now(),
  async sleepUntil(at, signal) {
    do {
      // Sliced, so delays beyond 2^31-1 ms (which Node fires at once) never reach setTimeout.
      await delay(Math.min(Math.max(at - Date.now(), 0), SLICE_MS), signal);
    } while (Date.now() < at);
  },
};

function delay(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const aborted = () => {
      clearTimeout(timer);
      reject(new AgentError('ERR_ABORTED', 'sleep: aborted'));
    };
    if (signal?.aborted) return reject(new AgentError('ERR_ABORTED', 'sleep: aborted'));
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', aborted);
      resolve();
    }, ms);
    signal?.addEventListener('abort', aborted, { once: true });
  });
}

/**
 * Runs `work` with a deadline: its signal fires after `ms` milliseconds or when `signal` does.
 *
 * @throws AgentError ERR_TIMEOUT (retry soon) naming `what` when time ran out, even where `work` ignores its signal.
 */
export async function withDeadline<T>(
  clock: Clock,
  ms: number,
  what: string,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const done = new AbortController();
  const timeout = new AbortController();
  const all = AbortSignal.any(signal ? [signal, timeout.signal] : [timeout.signal]);
  const expired = clock.sleepUntil(clock.now() + ms, signal ? AbortSignal.any([signal, done.signal]) : done.signal).then(() => {
    timeout.abort();
    throw new AgentError('ERR_TIMEOUT', `${what}: no answer within ${ms / 1000} s`, { retry: 'soon' });
  });
  try {
    return await Promise.race([work(all), expired]);
  } finally {
    done.abort();
    expired.catch(() => undefined);
  }
}
