import type { Deps } from '../../base/deps';
import type { CaStore } from './store';

/** What has expired is in nobody's way for so long. */
const EVERY_MS = 3_600_000;
/** Replicas that start together tidy up one after the other, and not while they have the most to do. */
const FIRST_MS = 60_000;

/** Drops what has expired from a store, about once an hour. Does nothing that anybody waits for. */
export function keepTidy(
  store: Pick<CaStore, 'sweep'>,
  { clock, random, log }: Deps,
): { close(): Promise<void> } {
  const stop = new AbortController();
  const run = async () => {
    for (let waitMs = FIRST_MS; ; waitMs = EVERY_MS) {
      await clock.sleepUntil(clock.now() + waitMs * (0.5 + random()), stop.signal);
      await store
        .sweep(clock.now())
        .catch((cause) => log.warn('cleanup of expired state failed', { cause }));
    }
  };
  // Only its end makes it end.
  const running = run().catch(() => undefined);
  return {
    async close() {
      stop.abort();
      await running;
    },
  };
}
