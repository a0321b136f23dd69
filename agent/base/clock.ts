import { AgentError } from './errors';

/** Time as everything in the agent sees it. Tests hold a `TestClock`. */
export interface Clock {
  /** Wall-clock epoch milliseconds. */
  now(): number;
  /**
   * Resolves once `now() >= at` (epoch milliseconds, may be in the past: then in the next turn), and no later than the time that there was
   * to wait at its start: a wall clock that is set back stretches no sleep, so look at `now()` again where the instant matters. A wall clock
   * that jumps forward, or a suspended machine, is noticed within a minute. Rejects with ERR_ABORTED when the signal fires.
   */
  sleepUntil(at: number, signal?: AbortSignal): Promise<void>;
  /**
   * Calls `listener` when the wall clock was found to have moved against the time that passed, by 5 s or more: it was set, or the machine
   * was suspended. Looked at whenever a sleeper stirs, hence within a minute. Returns the function that stops it.
   */
  onJump(listener: (jump: ClockJump) => void): () => void;
}

export interface ClockJump {
  /** Milliseconds; positive is forward. */
  readonly byMs: number;
}

/** A smaller step is no event: NTP daemons make them. */
export const JUMP_MS = 5_000;
/** A slice of sleep: timers count monotonic time, which stands still in suspend, so the wall clock is read again this often. */
const SLICE_MS = 30_000;

class SystemClock implements Clock {
  readonly #listeners = new Set<(jump: ClockJump) => void>();
  /** Wall clock minus monotonic clock; constant but for jumps and slewing. */
  #offsetMs = Date.now() - performance.now();

  now(): number {
    return Date.now();
  }

  async sleepUntil(at: number, signal?: AbortSignal): Promise<void> {
    const untilMs = performance.now() + Math.max(at - Date.now(), 0);
    do {
      // Sliced, so delays beyond 2^31-1 ms (which Node fires at once) never reach setTimeout.
      await delay(
        Math.min(Math.max(at - Date.now(), 0), Math.max(untilMs - performance.now(), 0), SLICE_MS),
        signal,
      );
      this.#lookForJump();
    } while (Date.now() < at && performance.now() < untilMs);
  }

  onJump(listener: (jump: ClockJump) => void): () => void {
    const entry = (jump: ClockJump) => listener(jump);
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  #lookForJump(): void {
    const offsetMs = Date.now() - performance.now();
    const byMs = Math.round(offsetMs - this.#offsetMs);
    this.#offsetMs = offsetMs;
    if (Math.abs(byMs) < JUMP_MS) return;
    for (const listener of [...this.#listeners]) listener({ byMs });
  }
}

/** The machine's clock. Its timers never keep the process alive on their own account beyond a pending sleep. */
export const systemClock: Clock = new SystemClock();

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
 * Waits so many milliseconds of the monotonic clock: for a time that another counts on, whatever happens to the wall clock.
 *
 * @throws AgentError ERR_ABORTED when the signal fires.
 */
export async function sleepFor(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  const endAt = performance.now() + ms;
  // A wall clock that is set forward ends a sleep early.
  do await clock.sleepUntil(clock.now() + endAt - performance.now(), signal);
  while (performance.now() < endAt);
}

/**
 * Runs `work` with a deadline: its signal fires after `ms` milliseconds, then `isDeadline`, or when `signal` does, with the reason of that.
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
  // Linked by hand: what AbortSignal.any makes of a long-lived signal stays with it (measured on Node 22: half a kilobyte a call).
  const timer = new AbortController();
  const bounded = new AbortController();
  const stop = () => {
    timer.abort();
    bounded.abort(signal?.reason);
  };
  if (signal?.aborted) stop();
  signal?.addEventListener('abort', stop, { once: true });
  const expired = clock.sleepUntil(clock.now() + ms, timer.signal).then(() => {
    const late = new AgentError('ERR_TIMEOUT', `${what}: no answer within ${ms / 1000} s`, {
      retry: 'soon',
    });
    bounded.abort(late);
    throw late;
  });
  try {
    return await Promise.race([work(bounded.signal), expired]);
  } finally {
    signal?.removeEventListener('abort', stop);
    timer.abort();
    void expired.catch(() => undefined);
  }
}

/** Waits for `work`, but no longer than `ms` milliseconds: it goes on all the same. Rejects with what it rejects with in that time. */
export async function waitAtMost(clock: Clock, ms: number, work: Promise<void>): Promise<void> {
  const done = new AbortController();
  void work.catch(() => undefined);
  try {
    await Promise.race([
      work,
      clock.sleepUntil(clock.now() + ms, done.signal).catch(() => undefined),
    ]);
  } finally {
    done.abort();
  }
}

/** Whether a signal fired because time ran out, and not because its owner gave up. */
export function isDeadline({ reason }: AbortSignal): boolean {
  return reason instanceof AgentError && reason.code === 'ERR_TIMEOUT';
}

/**
 * Runs `work` with a signal that fires with the first of several, and for its reason.
 *
 * @throws AgentError ERR_ABORTED naming `what` where one of them has fired before; what `work` throws.
 */
export async function linked<T>(
  signals: readonly (AbortSignal | undefined)[],
  what: string,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  // By hand, and undone: what AbortSignal.any makes of a long-lived signal stays with it.
  const both = new AbortController();
  const stops = signals.flatMap((signal) =>
    signal ? [{ signal, stop: () => both.abort(signal.reason) }] : [],
  );
  if (stops.some(({ signal }) => signal.aborted))
    throw new AgentError('ERR_ABORTED', `${what}: aborted`);
  for (const { signal, stop } of stops) signal.addEventListener('abort', stop, { once: true });
  try {
    return await work(both.signal);
  } finally {
    for (const { signal, stop } of stops) signal.removeEventListener('abort', stop);
  }
}

/**
 * Runs `work` with a signal that fires with this one, and when `work` has ended: for what it has begun and needs no more.
 *
 * @param reason  Of that end.
 */
export async function scoped<T>(
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
  reason?: unknown,
): Promise<T> {
  const scope = new AbortController();
  const stop = () => scope.abort(signal.reason);
  if (signal.aborted) stop();
  signal.addEventListener('abort', stop, { once: true });
  try {
    return await work(scope.signal);
  } finally {
    signal.removeEventListener('abort', stop);
    scope.abort(reason);
  }
}

/**
 * What `work` comes to, or the signal's reason where that fires first, also where `work` does not heed it.
 *
 * @throws What `work` throws; AgentError, ERR_ABORTED for a reason that is none.
 */
export async function untilAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  let stop: () => void = () => undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(AgentError.from(signal.reason, 'ERR_ABORTED'));
    signal.addEventListener('abort', stop, { once: true });
  });
  if (signal.aborted) stop();
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
