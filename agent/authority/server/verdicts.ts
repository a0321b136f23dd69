import type { Clock } from '../../base/clock';
import { AgentError } from '../../base/errors';

export interface VerdictOptions<T> {
  /** Until when a proof that was accepted stands, epoch milliseconds. */
  readonly yesUntilAt: (value: T, now: number) => number;
  /** How long a refusal is remembered, milliseconds. */
  readonly noMs: number;
}

/** A key that is not known yet may be published the next moment, and finding it out costs no signature. */
const UNKNOWN_KEY = 'token key';
/** Of each kind. Refusals never push out what was accepted: strangers make any number of them. */
const MAX_REMEMBERED = 4_096;

interface Kept<V> {
  readonly value: V;
  readonly untilAt: number;
}

/** Remembers what proofs were found to be worth, refusals like successes, so that one that is shown again costs nothing. */
export class Verdicts<T> {
  readonly #pending = new Map<string, Promise<T>>();
  readonly #accepted = new Map<string, Kept<T>>();
  readonly #refused = new Map<string, Kept<AgentError>>();

  constructor(
    private readonly options: VerdictOptions<T>,
    private readonly clock: Pick<Clock, 'now'>,
  ) {}

  /**
   * The verdict on the proof of that key. Calls that come at once share one verification; what could not be decided is asked again.
   *
   * @param verify  Resolves for a proof that is accepted. Rejects with ERR_TOKEN for one that is refused, else where it cannot be decided.
   */
  async of(key: string, verify: () => Promise<T>): Promise<T> {
    const accepted = current(this.#accepted, key, this.clock.now());
    if (accepted !== undefined) return accepted;
    const refused = current(this.#refused, key, this.clock.now());
    if (refused !== undefined) throw refused;
    const pending = this.#pending.get(key) ?? this.#verify(key, verify);
    return pending;
  }

  #verify(key: string, verify: () => Promise<T>): Promise<T> {
    const verdict = verify().then(
      (value) => {
        const now = this.clock.now();
        keep(this.#accepted, key, { value, untilAt: this.options.yesUntilAt(value, now) }, now);
        return value;
      },
      (caught) => {
        const error = AgentError.from(caught);
        const now = this.clock.now();
        if (error.code === 'ERR_TOKEN' && error.field !== UNKNOWN_KEY)
          keep(this.#refused, key, { value: error, untilAt: now + this.options.noMs }, now);
        throw caught;
      },
    );
    const settled = verdict.finally(() => this.#pending.delete(key));
    this.#pending.set(key, settled);
    return settled;
  }
}

function current<V>(kept: Map<string, Kept<V>>, key: string, now: number): V | undefined {
  const found = kept.get(key);
  if (found === undefined || now < found.untilAt) return found?.value;
  kept.delete(key);
  return undefined;
}

/** Keeps the memory bounded: what is over goes, and beyond the limit the oldest. */
function keep<V>(kept: Map<string, Kept<V>>, key: string, entry: Kept<V>, now: number): void {
  kept.delete(key);
  if (kept.size >= MAX_REMEMBERED)
    for (const [each, { untilAt }] of kept) if (now >= untilAt) kept.delete(each);
  for (const oldest of kept.keys()) {
    if (kept.size < MAX_REMEMBERED) break;
    kept.delete(oldest);
  }
  kept.set(key, entry);
}
