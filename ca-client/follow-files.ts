import { backoffMs, DEFAULT_BACKOFF } from '../agent/base/backoff';
import type { Deps } from '../agent/base/deps';
import { AgentError } from '../agent/base/errors';

/** A watch on a few files. */
export interface FollowedFiles {
  /** Resolves when the last look has ended. */
  close(): Promise<void>;
}

/** Until then whoever reads the files at the start has read them, and nothing that watching needs is loaded before the first certificate. */
const FOLLOW_AFTER_MS = 2_000;

/**
 * Calls `look` after any of the files changed, one call at a time, the first one soon after the start for what changed meanwhile. A `look`
 * that throws is repeated with growing waits.
 */
export function followFiles(paths: readonly string[], look: () => Promise<void>, deps: Deps): FollowedFiles {
  const stop = new AbortController();
  const running = follow(paths, look, deps, stop.signal).catch((cause) => {
    if (!stop.signal.aborted) deps.log.error('files are not followed', { paths, cause });
  });
  return {
    async close() {
      stop.abort();
      await running;
    },
  };
}

async function follow(paths: readonly string[], look: () => Promise<void>, deps: Deps, signal: AbortSignal): Promise<void> {
  const { clock, random } = deps;
  await clock.sleepUntil(clock.now() + FOLLOW_AFTER_MS, signal);
  const { watchFiles } = await import('../agent/base/file-watch');
  let wake = new AbortController();
  const stopped = () => wake.abort();
  signal.addEventListener('abort', stopped, { once: true });
  const watch = await watchFiles(paths, () => wake.abort(), deps);
  for (let failures = 0; !signal.aborted; ) {
    // Made anew before looking, so that a change during the look is not lost.
    wake = new AbortController();
    failures = await look().then(
      () => 0,
      () => failures + 1,
    );
    if (signal.aborted) break;
    const until = failures === 0 ? Number.POSITIVE_INFINITY : clock.now() + backoffMs(failures, DEFAULT_BACKOFF, random);
    await clock.sleepUntil(until, wake.signal).catch(ignoreAbort);
  }
  signal.removeEventListener('abort', stopped);
  await watch.close();
}

function ignoreAbort(caught: unknown): void {
  if (AgentError.from(caught).code !== 'ERR_ABORTED') throw caught;
}
