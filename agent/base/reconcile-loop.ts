import { backoffMs, DEFAULT_BACKOFF, FailureRun } from './backoff';
import type { Deps } from './deps';
import { AgentError } from './errors';

/** The least time between the starts of two reads, milliseconds: a target that always changes, or is always due, does not take all the time. */
export const RECONCILE_INTERVAL_MS = 50;

/** Something to follow: files, or an answer from elsewhere. */
export interface ReconcileTarget {
  /** Set up before the first read; `wake` ends the wait for the next one. */
  watch(wake: () => void): Promise<{ close(): Promise<void> } | undefined>;
  /** Reads once. Resolves to when the next read is due at the latest, epoch milliseconds; rejects to be retried sooner. */
  look(signal: AbortSignal): Promise<number>;
  /** Gets what a read rejected with. The next follows after 1, 2, 4 ... 45 s, by how often that kind of failure came in a row. */
  refused?(caught: unknown): void;
  /** After each read, if something else bounds the wait: when the next is due at the latest, epoch milliseconds. */
  notLaterThan?(): number;
}

/**
 * Reads until the signal fires, one read at a time; a change during a read leads to another. The result of a read that the signal cut off is
 * dropped.
 *
 * Resolves when the last read has ended and the watch is closed; rejects if the watch cannot be set up.
 *
 * @example
 *   const target = {
 *     watch: (wake) => watchFiles([path], wake, deps),
 *     look: async () => {
 *       bundle.set(parseBundle(await readFile(path)));
 *       return clock.now() + 60_000; // Again in a minute at the latest.
 *     },
 *     refused: (cause) => log.warn('bundle invalid, keeping the previous one', { cause }),
 *   };
 *   await reconcileLoop(target, deps, signal);
 */
export async function reconcileLoop(
  looked: ReconcileTarget,
  { clock, random }: Pick<Deps, 'clock' | 'random'>,
  signal: AbortSignal,
): Promise<void> {
  let wake = new AbortController();
  const end = () => wake.abort();
  signal.addEventListener('abort', end, { once: true });
  const watch = await looked.watch(end);
  const failures = new FailureRun();
  while (!signal.aborted) {
    // Made anew before looking, so that a change during the look is not lost.
    wake = new AbortController();
    const soonestAt = clock.now() + RECONCILE_INTERVAL_MS;
    let until: number;
    try {
      until = await looked.look(signal);
      failures.end();
    } catch (caught) {
      if (signal.aborted) break;
      looked.refused?.(caught);
      until =
        clock.now() + backoffMs(failures.failed(AgentError.from(caught)), DEFAULT_BACKOFF, random);
    }
    if (signal.aborted) break;
    until = Math.min(until, looked.notLaterThan?.() ?? until);
    await clock.sleepUntil(Math.max(until, soonestAt), wake.signal).catch(() => undefined);
    if (clock.now() < soonestAt) await clock.sleepUntil(soonestAt, signal).catch(() => undefined);
  }
  signal.removeEventListener('abort', end);
  await watch?.close();
}
