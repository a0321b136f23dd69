import type { Clock } from '../../base/clock';

export interface RateLimits {
  /** Calls a second; 0 is no limit. Of either a burst of one second's worth, at least one call, may come at once. */
  readonly perIdentity: number;
  readonly total: number;
}

/** Of the total, what only those get who were not served within the last second: a flood of one leaves the others their turn. */
const RESERVED_SHARE = 0.2;
/** Identities that are remembered. Who is forgotten begins with a full bucket, so this is no way around the total. */
const MAX_IDENTITIES = 65_536;

interface Bucket {
  tokens: number;
  /** When it was last filled. */
  at: number;
}

interface Identity extends Bucket {
  servedAt: number;
}

/**
 * How often certificates are signed: token buckets, one for each identity and one for all. A call that is refused takes nothing, so that
 * whoever waits as told is served.
 */
export class RateLimiter {
  /** In the order in which they were last served, so that the first is the one to forget. */
  readonly #identities = new Map<string, Identity>();
  readonly #all: Bucket;

  constructor(
    private readonly limits: RateLimits,
    private readonly clock: Pick<Clock, 'now'>,
  ) {
    this.#all = { tokens: burst(limits.total), at: clock.now() };
  }

  /** Takes a call in. @returns Undefined, or after how many milliseconds it may come again. */
  take(id: string): number | undefined {
    const { perIdentity, total } = this.limits;
    if (perIdentity === 0 && total === 0) return undefined;
    const now = this.clock.now();
    const known = this.#identities.get(id);
    const own = known ?? {
      tokens: burst(perIdentity),
      at: now,
      servedAt: Number.NEGATIVE_INFINITY,
    };
    fill(own, perIdentity, now);
    fill(this.#all, total, now);
    const reserved = Math.abs(now - own.servedAt) >= 1_000 ? 0 : burst(total) * RESERVED_SHARE;
    const waitMs = Math.max(missing(own, perIdentity, 0), missing(this.#all, total, reserved));
    if (waitMs > 0) return waitMs;
    own.tokens -= 1;
    this.#all.tokens -= 1;
    own.servedAt = now;
    this.#remember(id, own);
    return undefined;
  }

  #remember(id: string, identity: Identity): void {
    this.#identities.delete(id);
    this.#identities.set(id, identity);
    if (this.#identities.size <= MAX_IDENTITIES) return;
    for (const oldest of this.#identities.keys()) {
      this.#identities.delete(oldest);
      return;
    }
  }
}

const burst = (rate: number): number => Math.max(rate, 1);

/** A clock that was set back adds nothing, and is gone by from then on. */
function fill(bucket: Bucket, rate: number, now: number): void {
  bucket.tokens = Math.min(
    burst(rate),
    bucket.tokens + (Math.max(now - bucket.at, 0) * rate) / 1_000,
  );
  bucket.at = now;
}

/** Milliseconds until one can be taken and `reserved` is left; 0 where it can be now. */
function missing(bucket: Bucket, rate: number, reserved: number): number {
  const lacking = 1 + reserved - bucket.tokens;
  return rate === 0 || lacking <= 0 ? 0 : Math.ceil((lacking / rate) * 1_000);
}
