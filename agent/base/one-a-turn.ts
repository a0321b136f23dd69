export interface OneATurnOptions {
  /** What a step may take without a rest, milliseconds. */
  readonly plainMs: number;
  /** Of what a step takes beyond that, how many times as long the rest is. */
  readonly rests: number;
}

/** However long a step was: a machine that is busy with others makes every step long. */
const MAX_REST_MS = 100;

/**
 * Does steps that strangers cause, first come, first served, one in each turn of the loop, with a rest after one that took long. So what
 * known callers wait for has its turn in between, and dear steps get a share of the time only.
 */
export class OneATurn {
  readonly #waiting: (() => void)[] = [];
  #running = false;

  constructor(private readonly options: OneATurnOptions) {}

  /** @param step  Must not throw. Its microtasks and ticks count with it. */
  add(step: () => void): void {
    this.#waiting.push(step);
    if (this.#running) return;
    this.#running = true;
    this.#next();
  }

  #next(): void {
    const step = this.#waiting.shift();
    if (step === undefined) {
      this.#running = false;
      return;
    }
    let begun = { at: 0, cpu: process.cpuUsage() };
    setImmediate(() => {
      begun = { at: performance.now(), cpu: process.cpuUsage() };
      step();
    });
    // Asked for together, they follow each other, and what the step left to do at once comes between.
    setImmediate(() => {
      const { user, system } = process.cpuUsage(begun.cpu);
      // A machine that is busy elsewhere, or a container that is throttled, makes no step dear.
      this.#rest(Math.min(performance.now() - begun.at, (user + system) / 1_000));
    });
  }

  #rest(tookMs: number): void {
    const { plainMs, rests } = this.options;
    if (tookMs <= plainMs) this.#next();
    else setTimeout(() => this.#next(), Math.min((tookMs - plainMs) * rests, MAX_REST_MS));
  }
}
