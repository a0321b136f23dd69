import type { Clock } from '../../agent/base/clock';
import { AgentError } from '../../agent/base/errors';

interface Sleeper {
  readonly at: number;
  readonly wake: () => void;
}

/**
 * A clock that moves only when told. Injected rather than faked globally, because gRPC and HTTP/2 need their own timers running.
 * `advanceTo` lets pending promises settle between wake-ups, so code sees time pass in order.
 */
export class TestClock implements Clock {
  #now: number;
  #sleepers: Sleeper[] = [];

  constructor(now: number | string = '2026-01-01T00:00:00Z') {
    this.#now = typeof now === 'number' ? now : Date.parse(now);
  }

  now(): number {
    return this.#now;
  }

  sleepUntil(at: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(new AgentError('ERR_ABORTED', 'sleep: aborted'));
      const sleeper: Sleeper = {
        at,
        wake: () => {
          signal?.removeEventListener('abort', aborted);
          resolve();
        },
      };
      const aborted = () => {
        this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
        reject(new AgentError('ERR_ABORTED', 'sleep: aborted'));
      };
      signal?.addEventListener('abort', aborted, { once: true });
      this.#sleepers.push(sleeper);
      if (at <= this.#now) setImmediate(() => this.#release(sleeper));
    });
  }

  /** When the earliest sleeper wakes, or undefined. */
  nextWakeAt(): number | undefined {
    return this.#sleepers.length === 0 ? undefined : Math.min(...this.#sleepers.map((sleeper) => sleeper.at));
  }

  /** Moves time forward to `at`, stopping at every wake-up on the way. */
  async advanceTo(at: number): Promise<void> {
    await settle();
    for (;;) {
      const next = this.nextWakeAt();
      if (next === undefined || next > at) break;
      this.#now = Math.max(this.#now, next);
      for (const sleeper of this.#sleepers.filter((each) => each.at <= this.#now)) this.#release(sleeper);
      await settle();
    }
    this.#now = Math.max(this.#now, at);
    await settle();
  }

  async advanceBy(ms: number): Promise<void> {
    await this.advanceTo(this.#now + ms);
  }

  /** The wall clock jumps, as by NTP or after a suspend: sleepers look at it again as the system clock's slices would. */
  async jumpTo(at: number): Promise<void> {
    this.#now = at;
    for (const sleeper of this.#sleepers.filter((each) => each.at <= this.#now)) this.#release(sleeper);
    await settle();
  }

  #release(sleeper: Sleeper): void {
    if (!this.#sleepers.includes(sleeper)) return;
    this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
    sleeper.wake();
  }
}

/** Lets promises, microtasks and short I/O callbacks run. */
export async function settle(turns = 10): Promise<void> {
  for (let turn = 0; turn < turns; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
