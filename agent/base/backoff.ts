import type { Random } from './random';

/** Waits that double from `firstMs` up to `maxMs`, each moved by up to `jitterRatio` of itself in either direction. */
export interface BackoffPolicy {
  readonly firstMs: number;
  readonly maxMs: number;
  /** In [0, 1). */
  readonly jitterRatio: number;
}

/** 1, 2, 4 ... 45 s with 20 %: for a certificate that cannot be had, and for the files that should hold it. */
export const DEFAULT_BACKOFF: BackoffPolicy = { firstMs: 1_000, maxMs: 45_000, jitterRatio: 0.2 };

/**
 * How long to wait after the `failures`-th failure in a row, in milliseconds.
 *
 * @param failures  1 or more; any number is safe.
 */
export function backoffMs(failures: number, policy: BackoffPolicy, random: Random): number {
  const plainMs = Math.min(policy.maxMs, policy.firstMs * 2 ** Math.min(Math.max(failures, 1) - 1, 60));
  return plainMs * (1 + policy.jitterRatio * (2 * random() - 1));
}
