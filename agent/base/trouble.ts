import { type BackoffPolicy, backoffMs } from './backoff';
import type { Deps } from './deps';
import { AgentError } from './errors';

/** Cheap enough for as long as trouble lasts, and soon enough for who waits for its end. */
const BACKOFF: BackoffPolicy = { firstMs: 1_000, maxMs: 10_000, jitterRatio: 0.2 };

export interface TroubleOptions {
  /** Does once what has failed, or something that fails as long as that would. */
  attempt(): Promise<void>;
  /** When trouble began, with its error; and when it has passed. */
  began?(error: AgentError): void;
  passed?(): void;
}

/**
 * A reason to be not ready that ends by itself. A service that is not ready gets no requests, so none of them can find out that the disk has
 * room again or that a server answers: while there is trouble, the attempt is made again until it succeeds.
 */
export class Trouble {
  readonly #stop = new AbortController();
  #problem: AgentError | undefined;
  #trying: Promise<void> | undefined;
  #loop: Promise<void> | undefined;

  constructor(
    private readonly options: TroubleOptions,
    private readonly deps: Pick<Deps, 'clock' | 'random'>,
  ) {}

  /** Why it fails since the last try; undefined where it does not. */
  problem(): AgentError | undefined {
    return this.#problem;
  }

  /** What the work itself has met. */
  failed(caught: unknown): AgentError {
    const error = AgentError.from(caught);
    const isNew = this.#problem === undefined;
    this.#problem = error;
    if (isNew) this.options.began?.(error);
    if (!this.#stop.signal.aborted) this.#loop ??= this.#run();
    return error;
  }

  /** The work itself has succeeded, which may be luck: the last block of a full disk takes another line. The attempt tells. */
  worked(): void {
    if (this.#problem !== undefined) void this.tryNow().catch(() => undefined);
  }

  /** Makes the attempt now; callers at once share it. @throws AgentError with which it failed. */
  async tryNow(): Promise<void> {
    this.#trying ??= this.options
      .attempt()
      .then(
        () => {
          if (this.#problem === undefined) return;
          this.#problem = undefined;
          this.options.passed?.();
        },
        (caught) => {
          throw this.failed(caught);
        },
      )
      .finally(() => {
        this.#trying = undefined;
      });
    return this.#trying;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
    await this.#trying?.catch(() => undefined);
  }

  async #run(): Promise<void> {
    const { clock, random } = this.deps;
    for (let failures = 1; this.#problem !== undefined; failures += 1) {
      await clock
        .sleepUntil(clock.now() + backoffMs(failures, BACKOFF, random), this.#stop.signal)
        .catch(() => undefined);
      if (this.#stop.signal.aborted) return;
      if (this.#problem !== undefined) await this.tryNow().catch(() => undefined);
    }
    this.#loop = undefined;
  }
}
