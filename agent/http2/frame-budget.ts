/** Frames that a client may send at once, and again with each second, beyond those that its calls earn. */
const BURST = 2_000;
const A_SECOND = 100;
const EARNED_BY_CALL = 6;
const EARNED_BY_DATA = 3;

/**
 * What one client may make us do for nothing. Each frame but DATA with octets in it costs one: calls that are reset, pings, settings,
 * priorities, windows, continuations, frames of types that nobody knows. Calls that came to their end, and data that we sent, earn what
 * an honest client spends on them (its windows and pings), so only who sends frames instead of calls runs out.
 *
 * @see CVE-2019-9511 to 9518, CVE-2023-44487, CVE-2024-27316 for the floods that this is about.
 */
export class FrameBudget {
  #left = BURST;
  #filledAt: number;

  /** @param now  Monotonic milliseconds. */
  constructor(private readonly now: () => number) {
    this.#filledAt = now();
  }

  /** Whether there was one left. */
  spend(): boolean {
    if (this.#left < 1) this.#fill();
    this.#left -= 1;
    return this.#left >= 0;
  }

  callEnded(): void {
    this.#left = Math.min(BURST, this.#left + EARNED_BY_CALL);
  }

  dataSent(): void {
    this.#left = Math.min(BURST, this.#left + EARNED_BY_DATA);
  }

  #fill(): void {
    const now = this.now();
    this.#left = Math.min(BURST, this.#left + ((now - this.#filledAt) / 1_000) * A_SECOND);
    this.#filledAt = now;
  }
}
