/** What those who ask the same CA tell each other. */
export class CaNews {
  readonly #listeners = new Set<{ readonly call: () => void }>();

  /** It has given a certificate to one of them: what kept it from the others may be over. */
  answered(): void {
    for (const { call } of [...this.#listeners]) call();
  }

  /** @returns Ends it. */
  onAnswer(listener: () => void): () => void {
    const entry = { call: listener };
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }
}
