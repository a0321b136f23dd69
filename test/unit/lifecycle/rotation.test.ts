import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  MIN_INTERVAL_MS,
  planRenewal,
  planRetry,
  planTimeout,
  type RotationPolicy,
} from '../../../agent/lifecycle/rotation';

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const NOW = Date.parse('2026-01-01T00:00:00Z');
const HALF: RotationPolicy = { ratio: 0.5, jitterRatio: 0 };
const DEFAULT: RotationPolicy = { ratio: 0.5, jitterRatio: 0.05 };

const issued = (lifeMs: number, more: { backdatedMs?: number; receivedAt?: number } = {}) => ({
  notBeforeAt: NOW - (more.backdatedMs ?? 2 * MINUTE),
  notAfterAt: NOW + lifeMs,
  receivedAt: more.receivedAt ?? NOW,
});

describe('renewal', () => {
  test.each([
    ['half of a day', issued(DAY), HALF, 0, 12 * HOUR],
    ['half of an hour (upstream grace ratio 0.5)', issued(HOUR), HALF, 0, 30 * MINUTE],
    [
      'three quarters of an hour (upstream grace ratio 0.25)',
      issued(HOUR),
      { ratio: 0.75, jitterRatio: 0 },
      0,
      45 * MINUTE,
    ],
    [
      'a quarter of an hour (upstream grace ratio 0.75)',
      issued(HOUR),
      { ratio: 0.25, jitterRatio: 0 },
      0,
      15 * MINUTE,
    ],
    ['half of a day with no luck in the draw', issued(DAY), DEFAULT, 0, 12 * HOUR],
    ['half of a day with the middle draw', issued(DAY), DEFAULT, 0.5, 12 * HOUR - 36 * MINUTE],
    [
      'half of what remained when it was received late',
      issued(DAY, { receivedAt: NOW + 12 * HOUR }),
      HALF,
      0,
      18 * HOUR,
    ],
    [
      'half of the life that has not begun',
      issued(DAY, { backdatedMs: -4 * HOUR }),
      HALF,
      0,
      14 * HOUR,
    ],
    [
      'a short certificate that was backdated by more than its life',
      issued(20 * SECOND),
      HALF,
      0,
      10 * SECOND,
    ],
    ['60 days, whose half does not fit a timer', issued(60 * DAY), HALF, 0, 30 * DAY],
    ['ten years', issued(3650 * DAY), HALF, 0, 1825 * DAY],
  ])('is at %s', (_, cert, policy, random, wantMs) => {
    expect(planRenewal(cert, policy, random).renewAt - NOW).toBe(wantMs);
  });

  test.each([
    ['10 s', 10 * SECOND, 5 * SECOND],
    ['1 s', SECOND, SECOND],
    ['0', 0, SECOND],
    ['less than nothing', -HOUR, SECOND],
  ])('F6 of a validity of %s is never due within a second', (_, lifeMs, wantMs) => {
    expect(planRenewal(issued(lifeMs), HALF, 0).renewAt - NOW).toBe(wantMs);
  });

  test('comes before the credential that it needs dies, with time for retries', () => {
    const plan = planRenewal(issued(DAY), HALF, 0, NOW + 10 * HOUR);
    expect(plan.renewAt - NOW).toBe(9 * HOUR);
    expect(plan.steps[0]).toMatchObject({
      rule: 'credential for the next renewal',
      at: plan.renewAt,
    });
  });

  test.each([
    ['an hour', HOUR, 54 * MINUTE],
    ['ten minutes', 10 * MINUTE, 9 * MINUTE],
  ])(
    'waits for nine tenths of a credential of %s: a short one is no reason to renew once a second',
    (_, livesMs, wantMs) => {
      expect(planRenewal(issued(DAY), HALF, 0, NOW + livesMs).renewAt - NOW).toBe(wantMs);
    },
  );

  test.each([
    ['lives longer than the certificate', 30 * DAY],
    ['was dead at receipt', -MINUTE],
  ])('is not moved by a credential that %s', (_, expiresInMs) => {
    expect(planRenewal(issued(DAY), HALF, 0, NOW + expiresInMs).renewAt - NOW).toBe(12 * HOUR);
  });

  test('of a plan says why, most decisive first', () => {
    expect(planRenewal(issued(DAY), DEFAULT, 0.5, NOW + 30 * DAY).steps).toEqual([
      {
        rule: 'share of the usable validity',
        at: NOW + 11.4 * HOUR,
        detail: '50 % of 24h, moved 36m earlier of at most 1h12m',
      },
      {
        rule: 'credential for the next renewal',
        at: NOW + 30 * DAY - HOUR,
        detail: 'it expires at 2026-01-31T00:00:00.000Z; 1h are kept for retries',
      },
      { rule: 'usable validity starts', at: NOW, detail: 'at receipt; notBefore lies earlier' },
      { rule: 'certificate expires', at: NOW + DAY, detail: 'the earliest notAfter of its chain' },
    ]);
  });

  test('P4 always lies within the usable life, and never within a second of receipt', () => {
    const instant = fc.integer({ min: 0, max: Date.parse('2100-01-01T00:00:00Z') });
    const policies = fc
      .record({
        ratio: fc.double({ min: 0.01, max: 0.99, noNaN: true }),
        share: fc.double({ min: 0, max: 0.99, noNaN: true }),
      })
      .map(({ ratio, share }): RotationPolicy => ({ ratio, jitterRatio: ratio * share }));
    const random = fc.double({ min: 0, max: 0.999999999, noNaN: true });
    fc.assert(
      fc.property(
        instant,
        instant,
        instant,
        policies,
        random,
        fc.option(instant, { nil: undefined }),
        (nb, na, received, policy, draw, dies) => {
          const cert = { notBeforeAt: nb, notAfterAt: na, receivedAt: received };
          const { renewAt, steps } = planRenewal(cert, policy, draw, dies);
          const fromAt = Math.max(nb, received);
          const latestAt = fromAt + Math.max(na - fromAt, 0) * policy.ratio;
          expect(renewAt).toBeGreaterThanOrEqual(received + MIN_INTERVAL_MS);
          expect(renewAt).toBeLessThanOrEqual(
            Math.max(Math.ceil(latestAt), received + MIN_INTERVAL_MS),
          );
          expect(steps[0]!.at).toBe(renewAt);
          if (dies !== undefined && dies > received + MIN_INTERVAL_MS / 0.9)
            expect(renewAt).toBeLessThan(Math.max(dies, received + 2_000));
          // The same draw gives the same plan: jitter is drawn once per certificate.
          expect(planRenewal(cert, policy, draw, dies).renewAt).toBe(renewAt);
        },
      ),
      { numRuns: 20_000 },
    );
  });

  test('F10 of 10,000 agents started together is spread over more than 70 minutes, no minute above three times the mean', () => {
    const minutes = new Map<number, number>();
    for (let agent = 0; agent < 10_000; agent += 1) {
      const { renewAt } = planRenewal(issued(DAY), DEFAULT, Math.random());
      const minute = Math.floor((renewAt - NOW) / MINUTE);
      minutes.set(minute, (minutes.get(minute) ?? 0) + 1);
    }
    const window = Math.max(...minutes.keys()) - Math.min(...minutes.keys()) + 1;
    expect(window).toBeGreaterThanOrEqual(70);
    expect(Math.max(...minutes.values())).toBeLessThanOrEqual((3 * 10_000) / window);
  });
});

describe('a retry', () => {
  const middle = () => 0.5;
  const soon = { retry: 'soon', retryAfterMs: undefined } as const;
  const delay = (
    failures: number,
    error: { retry: 'soon' | 'slow' | 'never'; retryAfterMs: number | undefined },
    remainingMs?: number,
  ) =>
    planRetry(
      {
        failures,
        error,
        now: NOW,
        notAfterAt: remainingMs === undefined ? undefined : NOW + remainingMs,
      },
      middle,
    ).retryAt - NOW;

  test('waits 1, 2, 4 ... 45 s', () => {
    expect([1, 2, 3, 4, 5, 6, 7, 8, 1_000].map((failures) => delay(failures, soon))).toEqual(
      [1, 2, 4, 8, 16, 32, 45, 45, 45].map((seconds) => seconds * SECOND),
    );
  });

  test.each(['slow', 'never'] as const)(
    'C20 of a %s error is at the cap at once, and comes',
    (retry) => {
      expect(delay(1, { retry, retryAfterMs: undefined }, DAY)).toBe(45 * SECOND);
    },
  );

  test('never waits longer than a quarter of what remains, and never less than a second', () => {
    expect(delay(9, soon, 80 * SECOND)).toBe(20 * SECOND);
    expect(delay(9, soon, 2 * SECOND)).toBe(SECOND);
    expect(delay(9, soon, -DAY)).toBe(45 * SECOND);
  });

  test("C18 respects the server's own wish, up to five minutes or half of what remains", () => {
    expect(delay(1, { retry: 'soon', retryAfterMs: 60 * SECOND }, DAY)).toBe(66 * SECOND);
    expect(delay(1, { retry: 'soon', retryAfterMs: 30 * DAY }, DAY)).toBe(5 * MINUTE);
    expect(delay(1, { retry: 'soon', retryAfterMs: 30 * DAY })).toBe(5 * MINUTE);
    expect(delay(1, { retry: 'soon', retryAfterMs: 60 * SECOND }, 20 * SECOND)).toBe(10 * SECOND);
    expect(delay(3, { retry: 'soon', retryAfterMs: 1 }, DAY)).toBe(4 * SECOND);
    for (const odd of [Number.NaN, -5, Number.POSITIVE_INFINITY]) {
      const ms = delay(1, { retry: 'soon', retryAfterMs: odd }, DAY);
      expect(ms).toBeGreaterThanOrEqual(SECOND);
      expect(ms).toBeLessThanOrEqual(5 * MINUTE);
    }
  });

  test('P4 always lies between a second and five minutes ahead, and before expiry while a second fits', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1e9 }),
        fc.constantFrom('soon', 'slow', 'never'),
        fc.option(fc.double(), { nil: undefined }),
        fc.option(fc.integer({ min: -DAY, max: 3650 * DAY }), { nil: undefined }),
        fc.double({ min: 0, max: 0.999999999, noNaN: true }),
        (failures, retry, retryAfterMs, remainingMs, draw) => {
          const notAfterAt = remainingMs === undefined ? undefined : NOW + remainingMs;
          const ms =
            planRetry(
              { failures, error: { retry, retryAfterMs }, now: NOW, notAfterAt },
              () => draw,
            ).retryAt - NOW;
          expect(ms).toBeGreaterThanOrEqual(MIN_INTERVAL_MS);
          expect(ms).toBeLessThanOrEqual(5 * MINUTE);
          if (remainingMs !== undefined && remainingMs > 2 * SECOND)
            expect(ms).toBeLessThanOrEqual(remainingMs / 2);
        },
      ),
      { numRuns: 10_000 },
    );
  });

  test('C22 of 1,000 agents after an outage comes spread: no second above three times the mean of its minute', () => {
    const outageEndsAt = NOW + 12 * HOUR;
    const seconds = new Map<number, number>();
    for (let agent = 0; agent < 1_000; agent += 1) {
      let now = NOW + Math.random() * 72 * MINUTE;
      for (let failures = 1; now < outageEndsAt; failures += 1) {
        now = planRetry({ failures, error: soon, now, notAfterAt: NOW + DAY }, Math.random).retryAt;
      }
      const second = Math.floor((now - outageEndsAt) / SECOND);
      seconds.set(second, (seconds.get(second) ?? 0) + 1);
    }
    const window = Math.max(...seconds.keys()) + 1;
    expect(window).toBeGreaterThanOrEqual(40);
    expect(Math.max(...seconds.values())).toBeLessThanOrEqual((3 * 1_000) / window);
  });
});

describe('the time that an attempt may take', () => {
  const at = (unanswered: number, remainingMs: number | undefined, timeoutMs = MINUTE) =>
    planTimeout({
      timeoutMs,
      unanswered,
      now: NOW,
      notAfterAt: remainingMs === undefined ? undefined : NOW + remainingMs,
    });

  test.each([
    ['without a certificate', 0, undefined, MINUTE],
    ['without a certificate, however often nothing came', 9, undefined, MINUTE],
    ['with an expired one', 9, -SECOND, MINUTE],
    ['with a day left', 0, DAY, MINUTE],
    ['with a day left, twice as long after each that was not answered', 1, DAY, 2 * MINUTE],
    ['with a day left, at most ten minutes', 9, DAY, 10 * MINUTE],
    ['field: with a quarter of what remains, where that is less', 9, 20 * MINUTE, 5 * MINUTE],
    ['with ten seconds left', 0, 10 * SECOND, 2.5 * SECOND],
    ['with two seconds left, at the pace of attempts', 0, 2 * SECOND, SECOND],
  ])('is that of the setting or of what remains: %s', (_, unanswered, remainingMs, wantMs) => {
    expect(at(unanswered, remainingMs).ms).toBe(wantMs);
  });

  test('never ends past a quarter of what remains, unless within a second, and is never less than asked for without need', () => {
    const given = fc.record({
      unanswered: fc.nat(1_000),
      remaining: fc.integer({ min: 1, max: 400 * DAY }),
      timeout: fc.integer({ min: SECOND, max: 10 * MINUTE }),
    });
    fc.assert(
      fc.property(given, ({ unanswered, remaining, timeout }) => {
        const { ms, callMs, limit } = at(unanswered, remaining, timeout);
        expect(callMs).toBeGreaterThanOrEqual(ms);
        expect(callMs).toBeLessThanOrEqual(
          limit === 'setting' ? ms : Math.min(2 * ms, 10 * MINUTE),
        );
        expect(ms).toBeLessThanOrEqual(Math.max(Math.round(remaining / 4), MIN_INTERVAL_MS));
        expect(ms).toBeLessThanOrEqual(10 * MINUTE);
        if (limit === 'setting') expect(ms).toBeGreaterThanOrEqual(timeout);
      }),
    );
  });
});
