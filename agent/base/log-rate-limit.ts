import type { Clock } from './clock';

const WINDOW_MS = 60_000;

/** Lets a bounded number of lines a minute through, so that a client's storm does not become a storm in the log. */
export class LogRateLimit {
  readonly #clock: Clock;
  readonly #perMinute: number;
  #since = Number.NEGATIVE_INFINITY;
  #spent = 0;
  #kept = 0;

  constructor(clock: Clock, perMinute: number) {
    this.#clock = clock;
    this.#perMinute = perMinute;
  }

  /** Writes the line, told how many before it were withheld, or withholds it. */
  spend(write: (withheld: number | undefined) => void): void {
    const now = this.#clock.now();
    // Either way round: after a jump of the clock a new minute begins.
    if (Math.abs(now - this.#since) >= WINDOW_MS) {
      this.#since = now;
      this.#spent = 0;
    }
    if (this.#spent >= this.#perMinute) {
      this.#kept += 1;
      return;
    }
    this.#spent += 1;
    const withheld = this.#kept;
    this.#kept = 0;
    write(withheld === 0 ? undefined : withheld);
  }
}
