/** `inspect.custom` of node:util, whose other half a start has no use for. */
const INSPECT = Symbol.for('nodejs.util.inspect.custom');

/** Holds a key or a token. Whatever prints, serialises or inspects it shows `[redacted]`; only `reveal()` gives the value. */
export class Secret<T> {
  readonly #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  reveal(): T {
    return this.#value;
  }

  toString(): string {
    return '[redacted]';
  }

  toJSON(): string {
    return '[redacted]';
  }

  [INSPECT](): string {
    return '[redacted]';
  }
}
