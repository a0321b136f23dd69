import { type BackoffPolicy, backoffMs } from '../agent/base/backoff';
import type { Random } from '../agent/base/random';

/** Whether somebody that has failed is worth asking. Values are immutable; the functions below make the next one. */
export type Breaker =
  /** Asked as ever; `failures` in a row so far. */
  | { readonly kind: 'closed'; readonly failures: number }
  /** Not asked before `probeAt`; opened `times` times since it was last closed. */
  | {
      readonly kind: 'open';
      readonly openedAt: number;
      readonly probeAt: number;
      readonly times: number;
    }
  /** One at a time asks; `successes` in a row so far. */
  | {
      readonly kind: 'half-open';
      readonly successes: number;
      readonly probing: boolean;
      readonly times: number;
    };

export interface BreakerPolicy {
  /** Failures in a row that open it, 1 or more. */
  readonly failuresToOpen: number;
  /** Successful probes in a row that close it, 1 or more: one that flaps stays on probation. */
  readonly successesToClose: number;
  /** How long it stays open, by how often it was opened. */
  readonly open: BackoffPolicy;
}

/** A CA is asked once in hours: three failures are a minute of trying, and a probe is the next certificate. */
export const DEFAULT_BREAKER_POLICY: BreakerPolicy = {
  failuresToOpen: 3,
  successesToClose: 2,
  open: { firstMs: 30_000, maxMs: 600_000, jitterRatio: 0.2 },
};

export const CLOSED: Breaker = { kind: 'closed', failures: 0 };

/** Whether a call may be made at `now`. A clock that was set back to before the opening ends the wait. */
export function mayCall(breaker: Breaker, now: number): boolean {
  switch (breaker.kind) {
    case 'closed':
      return true;
    case 'open':
      return now >= breaker.probeAt || now < breaker.openedAt;
    case 'half-open':
      return !breaker.probing;
  }
}

/** A call begins, allowed or not: what is open is probed by it. */
export function begun(breaker: Breaker): Breaker {
  switch (breaker.kind) {
    case 'closed':
      return breaker;
    case 'open':
      return { kind: 'half-open', successes: 0, probing: true, times: breaker.times };
    case 'half-open':
      return { ...breaker, probing: true };
  }
}

/** It answered. */
export function succeeded(breaker: Breaker, policy: BreakerPolicy): Breaker {
  if (breaker.kind === 'closed') return CLOSED;
  // An answer that outlived the opening is news all the same, but no probe.
  if (breaker.kind === 'open') return breaker;
  const successes = breaker.successes + 1;
  return successes >= policy.successesToClose ? CLOSED : { ...breaker, successes, probing: false };
}

/** It failed. A probe that fails opens it for longer than before. */
export function failed(
  breaker: Breaker,
  now: number,
  policy: BreakerPolicy,
  random: Random,
): Breaker {
  if (breaker.kind === 'open') return breaker;
  if (breaker.kind === 'closed') {
    const failures = breaker.failures + 1;
    return failures < policy.failuresToOpen
      ? { kind: 'closed', failures }
      : opened(1, now, policy, random);
  }
  return opened(breaker.times + 1, now, policy, random);
}

/** The call ended without saying anything about it: whoever asked gave up. */
export function abandoned(breaker: Breaker): Breaker {
  return breaker.kind === 'half-open' ? { ...breaker, probing: false } : breaker;
}

function opened(times: number, now: number, policy: BreakerPolicy, random: Random): Breaker {
  return {
    kind: 'open',
    openedAt: now,
    probeAt: now + backoffMs(times, policy.open, random),
    times,
  };
}
