import type { Deps } from '../base/deps';
import { reconcileLoop } from '../base/reconcile-loop';

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
export function followFiles(
  paths: readonly string[],
  look: () => Promise<void>,
  deps: Deps,
): FollowedFiles {
  const stop = new AbortController();
  const running = follow(paths, look, deps, stop.signal).catch((cause) => {
    if (!stop.signal.aborted) deps.log.error('file watch failed', { paths, cause });
  });
  return {
    async close() {
      stop.abort();
      await running;
    },
  };
}

async function follow(
  paths: readonly string[],
  look: () => Promise<void>,
  deps: Deps,
  signal: AbortSignal,
): Promise<void> {
  const { clock } = deps;
  await clock.sleepUntil(clock.now() + FOLLOW_AFTER_MS, signal);
  const { watchFiles } = await import('../base/file-watch');
  await reconcileLoop(
    {
      watch: (wake) => watchFiles(paths, wake, deps),
      look: async () => {
        await look();
        return Number.POSITIVE_INFINITY;
      },
    },
    deps,
    signal,
  );
}
