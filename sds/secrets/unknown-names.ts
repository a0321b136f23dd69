import { LIMITS } from '../grpc/limits';

/** The names that clients asked for and nobody serves: how often each, the most recently met last, of bounded size. */
export class UnknownNames {
  readonly #counts = new Map<string, number>();

  /** Counts one. Returns whether it is the first time, as far as is remembered. */
  add(name: string): boolean {
    const shown = name.length > LIMITS.shownName ? `${name.slice(0, LIMITS.shownName)}...` : name;
    const count = this.#counts.get(shown) ?? 0;
    this.#counts.delete(shown);
    this.#counts.set(shown, count + 1);
    if (this.#counts.size > LIMITS.unknownNames)
      this.#counts.delete(this.#counts.keys().next().value!);
    return count === 0;
  }

  list(): readonly { readonly name: string; readonly count: number }[] {
    return [...this.#counts].map(([name, count]) => ({ name, count }));
  }
}
