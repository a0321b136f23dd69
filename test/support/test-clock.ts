import { type Clock, type ClockJump, JUMP_MS } from '../../agent/base/clock';
import { AgentError } from '../../agent/base/errors';

interface Sleeper {
  readonly at: number;
  /** When it wakes by the time that passed, should the wall clock be set back. */
  readonly elapsedAt: number;
  readonly wake: () => void;
}

/**
 * A clock that moves only when told. Injected rather than faked globally, because gRPC and HTTP/2 need their own timers running.
 * `advanceTo` lets pending promises settle between wake-ups, so code sees time pass in order.
 */
export class TestClock implements Clock {
  #now: number;
  /** Time that passed; jumps leave it alone. */
  #elapsed = 0;
  readonly #jumpListeners = new Set<(jump: ClockJump) => void>();
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
        elapsedAt: this.#elapsed + Math.max(at - this.#now, 0),
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

  onJump(listener: (jump: ClockJump) => void): () => void {
    const entry = (jump: ClockJump) => listener(jump);
    this.#jumpListeners.add(entry);
    return () => this.#jumpListeners.delete(entry);
  }

  /** When the earliest sleeper wakes, or undefined. */
  nextWakeAt(): number | undefined {
    return this.#sleepers.length === 0
      ? undefined
      : Math.min(...this.#sleepers.map((sleeper) => this.#wakeAt(sleeper)));
  }

  /** Moves time forward to `at`, stopping at every wake-up on the way. */
  async advanceTo(at: number): Promise<void> {
    await settle();
    for (;;) {
      const next = this.nextWakeAt();
      if (next === undefined || next > at) break;
      this.#passTo(next);
      this.#releaseDue();
      await settle();
    }
    this.#passTo(at);
    await settle();
  }

  async advanceBy(ms: number): Promise<void> {
    await this.advanceTo(this.#now + ms);
  }

  /** The wall clock jumps, as by NTP or after a suspend: sleepers look at it again as the system clock's slices would. */
  async jumpTo(at: number): Promise<void> {
    const byMs = at - this.#now;
    this.#now = at;
    if (Math.abs(byMs) >= JUMP_MS)
      for (const listener of [...this.#jumpListeners]) listener({ byMs });
    this.#releaseDue();
    await settle();
  }

  #wakeAt(sleeper: Sleeper): number {
    return Math.min(sleeper.at, this.#now + sleeper.elapsedAt - this.#elapsed);
  }

  #passTo(at: number): void {
    const ms = Math.max(at - this.#now, 0);
    this.#now += ms;
    this.#elapsed += ms;
  }

  #releaseDue(): void {
    for (const sleeper of this.#sleepers.filter((each) => this.#wakeAt(each) <= this.#now))
      this.#release(sleeper);
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
