/**
 * A current value and every change of it. Values are immutable; listeners must not throw.
 *
 * @example
 *   const roots = new WatchedSource<readonly string[]>([]);
 *   const stop = roots.subscribe((now) => log.info('roots', { count: now.length })); // At once, with 0.
 *   roots.set(['a']); // And again, with 1.
 *   stop();
 */
export interface Watched<T> {
  readonly value: T;
  /** Calls `listener` with the current value at once, then with each new one. Returns the function that stops it. */
  subscribe(listener: (value: T) => void): () => void;
}

/** The writing end of a `Watched`. Listeners run synchronously, in the order in which they subscribed. */
export class WatchedSource<T> implements Watched<T> {
  #value: T;
  readonly #listeners = new Set<(value: T) => void>();

  constructor(initial: T) {
    this.#value = initial;
  }

  get value(): T {
    return this.#value;
  }

  set(value: T): void {
    this.#value = value;
    for (const listener of [...this.#listeners]) {
      if (this.#listeners.has(listener)) listener(value);
    }
  }

  subscribe(listener: (value: T) => void): () => void {
    // Wrapped, so that the same function may subscribe twice and each subscription ends on its own.
    const entry = (value: T) => listener(value);
    this.#listeners.add(entry);
    entry(this.#value);
    return () => this.#listeners.delete(entry);
  }
}

/** Resolves with the first value, present or future, for which `wanted` holds. Rejects with the signal's reason when it fires. */
export function firstValue<T, S extends T>(
  watched: Watched<T>,
  wanted: (value: T) => value is S,
  signal?: AbortSignal,
): Promise<S>;
export function firstValue<T>(
  watched: Watched<T>,
  wanted: (value: T) => boolean,
  signal?: AbortSignal,
): Promise<T>;
export function firstValue<T>(
  watched: Watched<T>,
  wanted: (value: T) => boolean,
  signal?: AbortSignal,
): Promise<T> {
  return new Promise((resolve, reject) => {
    let stop: (() => void) | undefined;
    let settled = false;
    const settle = (finish: () => void) => {
      if (settled) return;
      settled = true;
      stop?.();
      signal?.removeEventListener('abort', aborted);
      finish();
    };
    const aborted = () => settle(() => reject(signal?.reason));
    if (signal?.aborted) return aborted();
    signal?.addEventListener('abort', aborted, { once: true });
    stop = watched.subscribe((value) => {
      if (wanted(value)) settle(() => resolve(value));
    });
    if (settled) stop();
  });
}
