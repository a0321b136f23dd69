import type { Clock } from './clock';
import { collectGarbage } from './gc';

/** By then everything that is loaded after the first secret has been loaded. */
const SETTLED_MS = 5_000;

/**
 * Gives back once what the start needed and the rest of the life does not: some 4 MB of 21, which V8 would keep because an agent that
 * allocates next to nothing hardly ever makes it collect. Takes about 15 ms. Resolves at once when the signal fires.
 */
export async function trimMemory(clock: Clock, signal: AbortSignal): Promise<void> {
  const settled = await clock.sleepUntil(clock.now() + SETTLED_MS, signal).then(
    () => true,
    () => false,
  );
  if (!settled) return;
  collectGarbage();
}

/** A burst is over by then. */
const CALM_MS = 2_000;

/**
 * Gives memory back a while after much has been done: call what it returns after each piece of work. V8 keeps what a burst has taken, and a
 * process that is idle otherwise makes too little garbage for it to look.
 *
 * @param pieces  How many are worth the pause of a collection, some 20 to 40 ms.
 */
export function trimAfterWork(pieces: number, clock: Clock, signal: AbortSignal): () => void {
  let done = 0;
  return () => {
    done += 1;
    if (done < pieces) return;
    done = Number.NEGATIVE_INFINITY;
    const calm = clock
      .sleepUntil(clock.now() + CALM_MS, signal)
      .then(collectGarbage, () => undefined);
    void calm.then(() => {
      done = 0;
    });
  };
}
