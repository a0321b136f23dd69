import { backoffMs, DEFAULT_BACKOFF, FailureRun } from './backoff';
import type { Deps } from './deps';
import { AgentError } from './errors';

/** Between the beginnings of two looks, at least: what changes without end, or always has something due, does not take all the time. */
export const RECONCILE_INTERVAL_MS = 50;

/** Something that is looked at again and again: files, or an answer from elsewhere. */
export interface ReconcileTarget {
  /** Set up before the first look; `wake` ends the wait for the next one. */
  watch(wake: () => void): Promise<{ close(): Promise<void> } | undefined>;
  /** Looks once. Resolves to when to look again at the latest, epoch milliseconds; rejects where that must be tried again sooner. */
  look(signal: AbortSignal): Promise<number>;
  /** Is told what a look rejected with. The next one follows after 1, 2, 4 ... 45 s, by how often that kind of failure came in a row. */
  refused?(caught: unknown): void;
  /** After each look, where something else bounds the wait: not later than this, epoch milliseconds. */
  notLaterThan?(): number;
}

/**
 * Looks until the signal fires, one look at a time; a change while one is under way leads to another. What a look that was cut off by the
 * signal says is not told.
 *
 * Resolves when the last look has ended and the watch is closed; rejects where the watch cannot be set up.
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
