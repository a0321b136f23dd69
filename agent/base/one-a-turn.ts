export interface OneATurnOptions {
  /** What a step may take without a rest, milliseconds. */
  readonly plainMs: number;
  /** Of what a step takes beyond that, how many times as long the rest is. */
  readonly rests: number;
  /** How many lanes there are, default 1. */
  readonly lanes?: number;
}

/** However long a step was: a machine that is busy with others makes every step long. */
const MAX_REST_MS = 100;

interface Lane {
  /** By who caused them; whoever comes first had the last turn longest ago. */
  readonly waiting: Map<string, (() => void)[]>;
  /** By `performance.now`. */
  restsUntil: number;
}

/**
 * Does steps that strangers cause, one in each turn of the loop, with a rest after one that took long. So what known callers wait for has
 * its turn in between, and dear steps get a share of the time only.
 *
 * Who cause them take turns, so that who causes many holds up nobody but itself, and so do lanes. A rest is for the lane of the dear step
 * and for those above it: what is likely to cost little waits for no such rest.
 */
export class OneATurn {
  readonly #lanes: readonly Lane[];
  #last = 0;
  #working = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(private readonly options: OneATurnOptions) {
    this.#lanes = Array.from({ length: options.lanes ?? 1 }, () => ({
      waiting: new Map(),
      restsUntil: 0,
    }));
  }

  /**
   * @param step   Must not throw. Its microtasks and ticks count with it.
   * @param whose  Who causes it.
   * @param lane   From 0 on: the more it may cost, the higher.
   */
  add(step: () => void, whose = '', lane = 0): void {
    const { waiting } = this.#lanes[lane]!;
    const own = waiting.get(whose);
    if (own) own.push(step);
    else waiting.set(whose, [step]);
    if (!this.#working) this.#next();
  }

  #next(): void {
    clearTimeout(this.#timer);
    const now = performance.now();
    const count = this.#lanes.length;
    const inTurn = Array.from({ length: count }, (_, index) => (this.#last + 1 + index) % count);
    const waiting = inTurn.filter((index) => this.#lanes[index]!.waiting.size > 0);
    const ready = waiting.find((index) => this.#lanes[index]!.restsUntil <= now);
    this.#working = ready !== undefined;
    if (ready !== undefined) this.#work(ready);
    else if (waiting.length > 0) {
      const restUntil = Math.min(...waiting.map((index) => this.#lanes[index]!.restsUntil));
      this.#timer = setTimeout(() => this.#next(), Math.ceil(restUntil - now));
    }
  }

  #work(lane: number): void {
    this.#last = lane;
    const step = taken(this.#lanes[lane]!);
    let begunAt = 0;
    let begunCpu: NodeJS.CpuUsage | undefined;
    setImmediate(() => {
      begunAt = performance.now();
      begunCpu = process.cpuUsage();
      step();
    });
    // Asked for together, they follow each other, and what the step left to do at once comes between.
    setImmediate(() => {
      const { user, system } = process.cpuUsage(begunCpu);
      // A machine that is busy elsewhere, or a container that is throttled, makes no step dear.
      this.#rest(lane, Math.min(performance.now() - begunAt, (user + system) / 1_000));
      this.#next();
    });
  }

  #rest(lane: number, tookMs: number): void {
    const { plainMs, rests } = this.options;
    if (tookMs <= plainMs) return;
    const restsUntil = performance.now() + Math.min((tookMs - plainMs) * rests, MAX_REST_MS);
    for (const each of this.#lanes.slice(lane)) each.restsUntil = restsUntil;
  }
}

/** The next step of a lane in which one waits. */
function taken({ waiting }: Lane): () => void {
  const [whose, steps] = waiting.entries().next().value!;
  waiting.delete(whose);
  const step = steps.shift()!;
  if (steps.length > 0) waiting.set(whose, steps);
  return step;
}
