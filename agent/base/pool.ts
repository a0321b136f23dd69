/** Something that several use at once. */
export interface Lease<T> {
  readonly value: T;
  /** Gives it back; it is closed behind the last user. Each lease counts once, however often this is called. */
  release(): Promise<void>;
}

interface Shared<T> {
  readonly opening: Promise<T>;
  users: number;
}

/** What several may use at once: opened for the first of them, closed behind the last. */
export class Pool<T extends { close(): Promise<void> }> {
  readonly #shared = new Map<string, Shared<T>>();

  /**
   * That which has the key, opened by `open` where nobody uses it yet.
   *
   * @throws What `open` throws, to all who waited for it; the next one opens anew.
   */
  async lease(key: string, open: () => Promise<T>): Promise<Lease<T>> {
    const shared = this.#shared.get(key) ?? { opening: open(), users: 0 };
    this.#shared.set(key, shared);
    shared.users += 1;
    let release = (): Promise<void> => this.#leave(key, shared);
    try {
      const value = await shared.opening;
      return {
        value,
        release: () => {
          const left = release();
          release = () => left;
          return left;
        },
      };
    } catch (caught) {
      this.#forget(key, shared);
      throw caught;
    }
  }

  async #leave(key: string, shared: Shared<T>): Promise<void> {
    shared.users -= 1;
    if (shared.users > 0) return;
    this.#forget(key, shared);
    await (await shared.opening).close();
  }

  #forget(key: string, shared: Shared<T>): void {
    if (this.#shared.get(key) === shared) this.#shared.delete(key);
  }
}
