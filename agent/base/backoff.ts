import type { AgentError } from './errors';
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
  const plainMs = Math.min(
    policy.maxMs,
    policy.firstMs * 2 ** Math.min(Math.max(failures, 1) - 1, 60),
  );
  return plainMs * (1 + policy.jitterRatio * (2 * random() - 1));
}

/** Failures in a row, counted by their kind: what one trouble has cost in waiting is not charged to the next one. */
export class FailureRun {
  #code: AgentError['code'] | undefined;
  #ofKind = 0;
  #changes = 0;
  #hasChanged = false;

  /**
   * One more. A failure of another kind than the last counts from one again; troubles that take turns count how often they did, so that
   * they are no way around the waits.
   *
   * @returns For `backoffMs`: 1 or more.
   */
  failed({ code }: Pick<AgentError, 'code'>): number {
    this.#hasChanged = this.#code !== undefined && code !== this.#code;
    if (this.#hasChanged) this.#changes += 1;
    this.#ofKind = code === this.#code ? this.#ofKind + 1 : 1;
    this.#code = code;
    return Math.max(this.#ofKind, this.#changes);
  }

  /** The wait after the last one was cut short by something else: it counts for none, so the next of its kind has the same wait. */
  cutShort(): void {
    this.#ofKind -= 1;
    if (this.#hasChanged) this.#changes -= 1;
    this.#hasChanged = false;
  }

  /** It worked, or what the next try depends on is another: a credential, a file, a setting. */
  end(): void {
    this.#code = undefined;
    this.#ofKind = 0;
    this.#changes = 0;
    this.#hasChanged = false;
  }
}
