/** Ends one thing that was started. */
export type Closer = () => Promise<void>;

/** What has been started so far, to be ended in the opposite order: whatever was built on something goes before it. */
export class Closers {
  readonly #open: Closer[];
  #closing: Promise<void> | undefined;

  /** @param open  What has been started already, the first of it first. */
  constructor(open: readonly Closer[] = []) {
    this.#open = [...open];
  }

  /** To be ended before everything that was added earlier. */
  add(closer: Closer): void {
    this.#open.push(closer);
  }

  /**
   * Ends everything, the last first and one at a time; each once, however often this is called. One that fails keeps none of the others
   * open: the first failure is thrown when all have had their turn.
   */
  readonly close = (): Promise<void> => {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  };

  async #closeAll(): Promise<void> {
    const failures: unknown[] = [];
    for (let closer = this.#open.pop(); closer !== undefined; closer = this.#open.pop()) {
      await closer().catch((caught: unknown) => failures.push(caught));
    }
    if (failures.length > 0) throw failures[0];
  }
}
