import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  abandoned,
  type Breaker,
  type BreakerPolicy,
  begun,
  CLOSED,
  DEFAULT_BREAKER_POLICY,
  failed,
  mayCall,
  succeeded,
} from '../../../ca-client/circuit-breaker';

const POLICY: BreakerPolicy = {
  failuresToOpen: 2,
  successesToClose: 2,
  open: { firstMs: 10, maxMs: 35, jitterRatio: 0 },
};
const open = (times: number, openedAt = 0): Breaker => ({
  kind: 'open',
  openedAt,
  probeAt: openedAt + Math.min(10 * 2 ** (times - 1), 35),
  times,
});
const half = (successes: number, probing: boolean, times = 1): Breaker => ({
  kind: 'half-open',
  successes,
  probing,
  times,
});

describe('a circuit breaker', () => {
  const fail = (breaker: Breaker, now = 0) => failed(breaker, now, POLICY, () => 0.5);
  const succeed = (breaker: Breaker) => succeeded(breaker, POLICY);
  test.each<[string, Breaker, Breaker]>([
    ['counts a failure', fail(CLOSED), { kind: 'closed', failures: 1 }],
    ['opens with the second in a row', fail(fail(CLOSED)), open(1)],
    ['forgets failures with a success', succeed(fail(CLOSED)), CLOSED],
    ['stays closed while a call runs', begun(CLOSED), CLOSED],
    ['is probed by the call that begins when it is open', begun(open(1)), half(0, true)],
    ['stays half open with one good probe', succeed(half(0, true)), half(1, false)],
    ['lets the next probe begin', begun(half(1, false)), half(1, true)],
    ['closes with the second good probe', succeed(half(1, true)), CLOSED],
    ['opens again with a bad probe, for twice as long', fail(half(1, true), 100), open(2, 100)],
    [
      'opens no longer than the policy says',
      fail(half(0, true, 9), 100),
      { kind: 'open', openedAt: 100, probeAt: 135, times: 10 },
    ],
    ['hears nothing from calls of before it opened: a failure', fail(open(1), 5), open(1)],
    ['hears nothing from calls of before it opened: a success', succeed(open(1)), open(1)],
    ['is free for another probe when one was given up', abandoned(half(1, true)), half(1, false)],
    [
      'does not mind a call that was given up while it is closed',
      abandoned(fail(CLOSED)),
      { kind: 'closed', failures: 1 },
    ],
  ])('%s', (_, got, want) => expect(got).toEqual(want));

  test.each<[string, Breaker, number, boolean]>([
    ['closed', CLOSED, 0, true],
    ['open before its time', open(1, 100), 109, false],
    ['open at its time', open(1, 100), 110, true],
    ['open on a clock that was set back to before', open(1, 100), 99, true],
    ['half open without a probe', half(1, false), 0, true],
    ['half open with a probe under way', half(0, true), 0, false],
  ])('%s lets a call through or not', (_, breaker, now, want) =>
    expect(mayCall(breaker, now)).toBe(want),
  );

  test('in any life is open for no longer than its policy, and lets one probe at a time through', () => {
    const { maxMs, jitterRatio } = DEFAULT_BREAKER_POLICY.open;
    const step = fc.record({
      what: fc.constantFrom('call', 'ok', 'fail', 'abandon'),
      ms: fc.nat(1_000_000),
      random: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        let breaker = CLOSED;
        let now = 0;
        let inFlight = 0;
        for (const { what, ms, random } of steps) {
          now += ms;
          if (what === 'call') {
            if (!mayCall(breaker, now)) continue;
            breaker = begun(breaker);
            inFlight += 1;
          } else if (inFlight > 0) {
            inFlight -= 1;
            if (what === 'ok') breaker = succeeded(breaker, DEFAULT_BREAKER_POLICY);
            if (what === 'fail')
              breaker = failed(breaker, now, DEFAULT_BREAKER_POLICY, () => random);
            if (what === 'abandon') breaker = abandoned(breaker);
          }
          if (breaker.kind === 'open') {
            expect(breaker.probeAt - breaker.openedAt).toBeLessThanOrEqual(
              maxMs * (1 + jitterRatio),
            );
            expect(mayCall(breaker, breaker.probeAt)).toBe(true);
          }
          if (breaker.kind === 'half-open' && breaker.probing)
            expect(mayCall(breaker, now)).toBe(false);
          if (breaker.kind === 'closed')
            expect(breaker.failures).toBeLessThan(DEFAULT_BREAKER_POLICY.failuresToOpen);
        }
      }),
      { numRuns: 10_000 },
    );
  });
});
