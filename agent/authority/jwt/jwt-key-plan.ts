import { MAX_JWT_TTL_MS } from '../../identity/jwt-svid';

/** When a key of JWT-SVIDs begins to sign; it ends when the next begins. Numbers rise with the time of making. */
export interface KeyTerm {
  readonly number: number;
  /** Epoch milliseconds. */
  readonly activeAt: number;
}

/** What is to be done with the keys at one moment. */
export interface KeyPlan<K extends KeyTerm> {
  /** Undefined only where there are no keys. */
  readonly signing: K | undefined;
  /** Those whose public halves are told: what is signed by any of them may be met. */
  readonly published: readonly K[];
  /** Those that nobody needs any more. */
  readonly gone: readonly K[];
  /** The key to be made now. */
  readonly due: KeyTerm | undefined;
  /** When to look again, epoch milliseconds. */
  readonly nextAt: number;
}

const DAY_MS = 24 * 3_600_000;
/** How long a key signs, and how long before that it is told: whoever looks at our bundle once a day has it in time. */
const SIGNS_MS = 7 * DAY_MS;
const AHEAD_MS = DAY_MS;
/** Clocks of verifiers may be behind. */
const SKEW_MS = 5 * 60_000;

/**
 * Every process that reads the same keys makes the same plan, so that none needs to ask another.
 *
 * The first key signs at once. Each next one is told a day ahead, also where the present one has long had its day because nobody was
 * running: verifiers elsewhere know that one and not the next. A key stays published until the last token that it can have signed is over.
 *
 * @param keys  In any order.
 */
export function planKeys<K extends KeyTerm>(keys: readonly K[], now: number): KeyPlan<K> {
  const sorted = [...keys].sort((a, b) => a.number - b.number);
  const first = sorted[0];
  if (first === undefined)
    return {
      signing: undefined,
      published: [],
      gone: [],
      due: { number: 1, activeAt: now },
      nextAt: now,
    };
  // A clock that was set back must not leave nobody to sign.
  const signing = sorted.findLast(({ activeAt }) => activeAt <= now) ?? first;
  const last = sorted.at(-1)!;
  const goneAt = (index: number) =>
    (sorted[index + 1]?.activeAt ?? Number.POSITIVE_INFINITY) + MAX_JWT_TTL_MS + SKEW_MS;
  const isGone = (_: K, index: number) => goneAt(index) <= now;
  const makeAt = last.activeAt + SIGNS_MS - AHEAD_MS;
  const due =
    last === signing && now >= makeAt
      ? { number: last.number + 1, activeAt: Math.max(last.activeAt + SIGNS_MS, now + AHEAD_MS) }
      : undefined;
  const events = [makeAt, last.activeAt, ...sorted.map((__, index) => goneAt(index))].filter(
    (at) => at > now,
  );
  return {
    signing,
    published: sorted.filter((key, index) => !isGone(key, index)),
    gone: sorted.filter(isGone),
    due,
    nextAt: due ? now : Math.min(...events),
  };
}
