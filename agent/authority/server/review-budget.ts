import type { Deps } from '../../base/deps';
import { Semaphore } from '../../base/semaphore';
import { LIMITS, PATIENCE } from './limits';
import { RateLimiter } from './rate-limits';
import { tooManyRequests } from './status';

/**
 * How often strangers make us ask others: by source address, in all, and so many at once. Of the total, a fifth is for addresses that were
 * not served within the last second, so that a flood leaves a new caller its turn.
 */
export class ReviewBudget {
  readonly #rates: RateLimiter;
  readonly #slots: Semaphore;
  #waiting = 0;

  constructor({ clock }: Pick<Deps, 'clock'>) {
    this.#rates = new RateLimiter(
      { perIdentity: LIMITS.reviewsPerAddress, total: LIMITS.reviews },
      clock,
    );
    this.#slots = new Semaphore({ slots: LIMITS.reviewsAtOnce, holdMs: PATIENCE.reviewMs }, clock);
  }

  /** @throws RefusedCall RESOURCE_EXHAUSTED beyond the limits; AgentError ERR_ABORTED; what `ask` throws. */
  async spend<T>(address: string, signal: AbortSignal, ask: () => Promise<T>): Promise<T> {
    if (this.#waiting >= LIMITS.reviews) throw tooManyRequests('too many pending token reviews');
    const waitMs = this.#rates.take(address);
    if (waitMs !== undefined) throw tooManyRequests('token review rate limit exceeded', waitMs);
    this.#waiting += 1;
    const leave = await this.#slots.enter(signal).finally(() => {
      this.#waiting -= 1;
    });
    try {
      return await ask();
    } finally {
      leave();
    }
  }
}
