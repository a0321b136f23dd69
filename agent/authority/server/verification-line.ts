import { LIMITS } from './limits';
import { tooManyRequests } from './status';

/**
 * Runs the verification of what strangers show one after the other: it takes one thread of the pool at most, and leaves the others to
 * requests of authenticated callers.
 */
export class VerificationLine {
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  /** @throws RefusedCall RESOURCE_EXHAUSTED where too many wait already; what `work` throws. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#waiting >= LIMITS.verifying)
      throw tooManyRequests('too many concurrent certificate verifications');
    this.#waiting += 1;
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => undefined);
    try {
      return await turn;
    } finally {
      this.#waiting -= 1;
    }
  }
}
