import { inspect } from 'node:util';

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

  [inspect.custom](): string {
    return '[redacted]';
  }
}
