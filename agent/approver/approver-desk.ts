import { backoffMs, DEFAULT_BACKOFF } from '../base/backoff';
import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import { isKubeStatus } from '../kube/kube-error';

/** A request that waits for its decision. */
interface Entry {
  readonly name: string;
  readonly uid: string;
  failures: number;
  error: AgentError | undefined;
}

/** A request that cannot be decided for now. */
export interface StuckRequest {
  readonly name: string;
  readonly error: AgentError;
}

/** Requests that are decided at once. */
const PARALLEL = 8;
/** Of those, at most so many that failed before: what cannot be decided never takes the place of what can. */
const PARALLEL_AGAIN = 3;
/** An agent waits for a minute, so the first attempts are soon; what is in the way for good is asked for seldom. */
const BACKOFF = { ...DEFAULT_BACKOFF, maxMs: 300_000 };
/** From so many failures on a request counts as stuck. */
const STUCK_FAILURES = 3;

/**
 * Decides what is put on it, a few at a time. What fails waits by itself, and what is deleted is forgotten. It keeps names only: requests
 * are read when their turn comes, so a thousand large ones take no memory.
 */
export class ApproverDesk {
  /** By uid: waiting, being decided, or to be tried again. */
  readonly #entries = new Map<string, Entry>();
  readonly #fresh: Entry[] = [];
  readonly #again: Entry[] = [];
  readonly #tasks = new Set<Promise<void>>();
  /** Ends the waits of what failed. */
  #wake = new AbortController();
  #working = 0;
  #workingAgain = 0;

  /**
   * @param decide  Reads and decides a request; what it throws is tried again, but for a KubeError 404.
   * @param signal  Ends everything.
   */
  constructor(
    private readonly decide: (name: string, uid: string) => Promise<void>,
    private readonly deps: Deps,
    private readonly signal: AbortSignal,
  ) {
    signal.addEventListener('abort', () => this.#wake.abort(), { once: true });
  }

  get size(): number {
    return this.#entries.size;
  }

  put({ name, uid }: { readonly name: string; readonly uid: string }): void {
    if (this.#entries.has(uid)) return;
    const entry = { name, uid, failures: 0, error: undefined };
    this.#entries.set(uid, entry);
    this.#fresh.push(entry);
    this.#start();
  }

  forget(uid: string): void {
    this.#entries.delete(uid);
  }

  /** After a complete list: forgets what it does not name, and tries the others now, for the server may have been away. */
  listed(uids: ReadonlySet<string>): void {
    for (const uid of this.#entries.keys()) if (!uids.has(uid)) this.#entries.delete(uid);
    this.#wake.abort();
    this.#wake = new AbortController();
  }

  /** Requests that failed again and again, the first put first. */
  stuck(): readonly StuckRequest[] {
    return [...this.#entries.values()].flatMap(({ name, failures, error }) =>
      failures >= STUCK_FAILURES && error ? [{ name, error }] : [],
    );
  }

  /** Resolves when the signal has fired and the last decision is over. */
  async closed(): Promise<void> {
    while (this.#tasks.size > 0) await Promise.allSettled(this.#tasks);
  }

  #start(): void {
    while (this.#working < PARALLEL && !this.signal.aborted) {
      const entry = this.#next();
      if (!entry) return;
      if (this.#entries.get(entry.uid) === entry) this.#track(this.#work(entry));
    }
  }

  #next(): Entry | undefined {
    const fresh = this.#fresh.shift();
    if (fresh || this.#workingAgain >= PARALLEL_AGAIN) return fresh;
    // The one that failed least often: a conflict is over sooner than what can never be written.
    const least = this.#again.reduce(
      (found, { failures }, index) =>
        failures < (this.#again[found]?.failures ?? Infinity) ? index : found,
      0,
    );
    return this.#again.splice(least, 1)[0];
  }

  #track(task: Promise<void>): void {
    const tracked = task.finally(() => this.#tasks.delete(tracked));
    this.#tasks.add(tracked);
  }

  async #work(entry: Entry): Promise<void> {
    const isAgain = entry.failures > 0;
    this.#working += 1;
    if (isAgain) this.#workingAgain += 1;
    let waitMs: number | undefined;
    try {
      waitMs = await this.#attempt(entry);
    } finally {
      this.#working -= 1;
      if (isAgain) this.#workingAgain -= 1;
    }
    // Only the request waits, not the place that it had.
    if (waitMs !== undefined) this.#track(this.#later(entry, waitMs));
    this.#start();
  }

  /** Milliseconds to wait before the next attempt, or undefined where none is needed. */
  async #attempt(entry: Entry): Promise<number | undefined> {
    try {
      await this.decide(entry.name, entry.uid);
    } catch (caught) {
      if (!this.signal.aborted && !isKubeStatus(caught, 404) && this.#entries.has(entry.uid))
        return this.#failed(entry, caught);
    }
    this.#entries.delete(entry.uid);
    return undefined;
  }

  #failed(entry: Entry, caught: unknown): number {
    entry.failures += 1;
    // Another replica was faster, most likely: look again at once.
    if (isKubeStatus(caught, 409) && entry.failures === 1) return 0;
    entry.error = AgentError.from(caught);
    const waitMs = Math.max(
      backoffMs(entry.failures, BACKOFF, this.deps.random),
      entry.error.retryAfterMs ?? 0,
    );
    this.deps.metrics.record('approver_failures_total', {
      operation: 'decide',
      code: entry.error.code,
    });
    this.deps.log.warn('request evaluation failed', {
      request: entry.name,
      retryInSeconds: waitMs / 1_000,
      cause: entry.error,
    });
    return waitMs;
  }

  async #later(entry: Entry, waitMs: number): Promise<void> {
    const { clock } = this.deps;
    await clock.sleepUntil(clock.now() + waitMs, this.#wake.signal).catch(() => undefined);
    if (this.signal.aborted || this.#entries.get(entry.uid) !== entry) return;
    this.#again.push(entry);
    this.#start();
  }
}
