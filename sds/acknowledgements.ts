import { IDENTITY_NAME } from './resource-name';
import type { OpenStream } from './stream';

/** How many leaves back a wait may ask for. */
const MAX_SERIALS = 64;

interface Waiter {
  readonly serial: string;
  readonly resolve: (count: number) => void;
}

/** Waits until every stream that watches `default` has acknowledged a leaf, or a later one. */
export class Acknowledgements {
  readonly #streams: () => Iterable<OpenStream>;
  readonly #order = new Map<string, number>();
  readonly #waiters = new Set<Waiter>();
  #published = 0;
  #checking = false;

  constructor(streams: () => Iterable<OpenStream>) {
    this.#streams = streams;
  }

  /** A leaf is in service from now on. */
  published(serial: string): void {
    if (this.#order.has(serial)) return;
    this.#published += 1;
    this.#order.set(serial, this.#published);
    if (this.#order.size > MAX_SERIALS) this.#order.delete(this.#order.keys().next().value!);
    this.changed();
  }

  /** A stream acknowledged, ended or watches other names. Checks once for all that happens in this turn. */
  changed(): void {
    if (this.#checking || this.#waiters.size === 0) return;
    this.#checking = true;
    setImmediate(() => {
      this.#checking = false;
      for (const waiter of [...this.#waiters]) this.#check(waiter);
    });
  }

  /** Resolves with the number of streams. Rejects with the signal's reason when it fires. */
  wait(serial: string, signal: AbortSignal): Promise<number> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const settled = () => {
        this.#waiters.delete(waiter);
        signal.removeEventListener('abort', aborted);
      };
      const aborted = () => {
        settled();
        reject(signal.reason);
      };
      const waiter: Waiter = {
        serial,
        resolve: (count) => {
          settled();
          resolve(count);
        },
      };
      signal.addEventListener('abort', aborted, { once: true });
      this.#waiters.add(waiter);
      this.#check(waiter);
    });
  }

  #check(waiter: Waiter): void {
    const wanted = this.#order.get(waiter.serial);
    if (wanted === undefined) return;
    let count = 0;
    for (const stream of this.#streams()) {
      const entry = stream.names.get(IDENTITY_NAME);
      if (!entry) continue;
      const serial = entry.acknowledged?.serial;
      if (serial === undefined || (this.#order.get(serial) ?? 0) < wanted) return;
      count += 1;
    }
    waiter.resolve(count);
  }
}
