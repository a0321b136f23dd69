import type { Clock } from './clock';
import { AgentError } from './errors';

export interface SemaphoreOptions {
  /** How many may be inside. */
  readonly slots: number;
  /** Who is inside for longer, milliseconds, no longer takes a slot: one that hangs must not shut out the others. */
  readonly holdMs: number;
}

/** Leaves the semaphore; idempotent. */
export type Leave = () => void;

/** Lets a crowd in a few at a time, first come, first served. */
export class Semaphore {
  readonly #waiting: (() => void)[] = [];
  #inside = 0;

  constructor(
    private readonly options: SemaphoreOptions,
    private readonly clock: Clock,
  ) {}

  /**
   * Waits for a slot.
   *
   * @throws AgentError ERR_ABORTED when the signal fires before there is one.
   */
  async enter(signal: AbortSignal): Promise<Leave> {
    if (signal.aborted) throw aborted();
    if (this.#inside >= this.options.slots) await this.#turn(signal);
    else this.#inside += 1;
    return this.#hold();
  }

  /** A slot that was left goes to the next in line, so nobody who comes meanwhile can take it. */
  #turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const enter = () => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(enter), 1);
        reject(aborted());
      };
      signal.addEventListener('abort', leave, { once: true });
      this.#waiting.push(enter);
    });
  }

  #hold(): Leave {
    const ended = new AbortController();
    const leave = () => {
      if (ended.signal.aborted) return;
      ended.abort();
      const next = this.#waiting.shift();
      if (next) next();
      else this.#inside -= 1;
    };
    this.clock
      .sleepUntil(this.clock.now() + this.options.holdMs, ended.signal)
      .then(leave, () => undefined);
    return leave;
  }
}

function aborted(): AgentError {
  return new AgentError('ERR_ABORTED', 'wait for a slot: aborted');
}
