import type { Clock } from '../../../agent/base/clock';

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
  at: number;
}

/**
 * How often certificates are signed: token buckets, one for each identity and one for all. A call that is refused takes nothing, so that
 * whoever waits as told is served.
 */
export class RateLimiter {
  /** In the order in which they were last served, so that the first is the one to forget. */
  readonly #identities = new Map<string, Bucket>();
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
    const own = known ?? { tokens: burst(perIdentity), at: now };
    // One that was served within the last second has a bucket that is younger.
    const quiet = known === undefined || now - known.at >= 1_000;
    const reserved = quiet ? 0 : burst(total) * RESERVED_SHARE;
    const waitMs = Math.max(missing(own, perIdentity, 0, now), missing(this.#all, total, reserved, now));
    if (waitMs > 0) return waitMs;
    spend(own, perIdentity, now);
    spend(this.#all, total, now);
    this.#remember(id, own);
    return undefined;
  }

  #remember(id: string, bucket: Bucket): void {
    this.#identities.delete(id);
    this.#identities.set(id, bucket);
    if (this.#identities.size <= MAX_IDENTITIES) return;
    for (const oldest of this.#identities.keys()) {
      this.#identities.delete(oldest);
      return;
    }
  }
}

const burst = (rate: number): number => Math.max(rate, 1);

/** What is in a bucket at `now`. A clock that was set back adds nothing. */
function level(bucket: Bucket, rate: number, now: number): number {
  return Math.min(burst(rate), bucket.tokens + (Math.max(now - bucket.at, 0) * rate) / 1_000);
}

/** Milliseconds until one can be taken and `reserved` is left; 0 where it can be now. */
function missing(bucket: Bucket, rate: number, reserved: number, now: number): number {
  if (rate === 0) return 0;
  const lacking = 1 + reserved - level(bucket, rate, now);
  return lacking <= 0 ? 0 : Math.ceil((lacking / rate) * 1_000);
}

function spend(bucket: Bucket, rate: number, now: number): void {
  bucket.tokens = level(bucket, rate, now) - 1;
  bucket.at = now;
}
