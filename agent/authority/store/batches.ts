/** Collects what is to be written while a write is under way, and writes it together: one at a time, in order. */
export class Batches<T> {
  #waiting: {
    readonly item: T;
    readonly done: () => void;
    readonly failed: (error: unknown) => void;
  }[] = [];
  #writing: Promise<void> | undefined;

  /** @param write  Takes 1 to `max` items. What it throws, each of them is told. */
  constructor(
    private readonly max: number,
    private readonly write: (items: readonly T[]) => Promise<void>,
  ) {}

  /** Resolves when the item is written. */
  add(item: T): Promise<void> {
    return new Promise((done, failed) => {
      this.#waiting.push({ item, done, failed });
      this.#writing ??= this.#writeAll();
    });
  }

  /** Resolves when nothing is under way. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  async #writeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      // At the end of the turn, so that all who come in it go together.
      await new Promise((turned) => setImmediate(turned));
      const batch = this.#waiting.splice(0, this.max);
      try {
        await this.write(batch.map(({ item }) => item));
        for (const { done } of batch) done();
      } catch (caught) {
        for (const { failed } of batch) failed(caught);
      }
    }
    this.#writing = undefined;
  }
}
