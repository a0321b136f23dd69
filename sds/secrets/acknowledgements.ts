import type { OpenStream } from './stream';
import type { NameEntry } from './subscription';

/** How many leaves back a wait may ask for. */
const MAX_SERIALS = 64;

interface Waiter {
  readonly serial: string;
  readonly resolve: (count: number) => void;
}

/** Waits until every stream that watches the identity, under either of its names, has acknowledged a leaf, or a later one. */
export class Acknowledgements {
  readonly #streams: () => Iterable<OpenStream>;
  readonly #names: () => readonly string[];
  readonly #order = new Map<string, number>();
  readonly #waiters = new Set<Waiter>();
  #published = 0;
  #checking = false;

  /** @param names  Those that the identity has at the moment. */
  constructor(streams: () => Iterable<OpenStream>, names: () => readonly string[]) {
    this.#streams = streams;
    this.#names = names;
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
    const names = this.#names();
    for (const stream of this.#streams()) {
      const entries = names.flatMap((name) => stream.names.get(name) ?? []);
      const behind = ({ acknowledged }: NameEntry) =>
        (this.#order.get(acknowledged?.serial ?? '') ?? 0) < wanted;
      if (entries.some(behind)) return;
      if (entries.length > 0) count += 1;
    }
    waiter.resolve(count);
  }
}
