/** A part of each turn of the event loop that many share: who has not finished when it is over waits for the next, in order. */
export class LoopShare {
  readonly #waiting = new Set<() => void>();
  #begun = false;
  #endAt = 0;

  /** @param ms  What all together may take of one turn, so that timers, files and sockets have theirs. */
  constructor(private readonly ms: number) {}

  /** Whether there is time left in this turn. */
  hasTime(): boolean {
    this.#begin();
    return performance.now() < this.#endAt;
  }

  /** Runs that in a turn to come. It does a piece of its work at least, and waits again for the rest. */
  wait(work: () => void): void {
    this.#waiting.add(work);
    this.#begin();
  }

  #begin(): void {
    if (this.#begun) return;
    this.#begun = true;
    this.#endAt = performance.now() + this.ms;
    setImmediate(() => this.#next());
  }

  #next(): void {
    this.#begun = false;
    for (const work of this.#waiting) {
      if (!this.hasTime()) return;
      this.#waiting.delete(work);
      work();
    }
  }
}
