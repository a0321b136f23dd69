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
