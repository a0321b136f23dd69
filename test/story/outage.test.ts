import { describe, expect, test } from '@jest/globals';
import { AgentError } from '../../agent/base/errors';
import { DAY, HOUR, MINUTE, SECOND, tell } from '../support/keeper-story';
import { seeded } from '../support/seeded';

describe('an outage of the CA', () => {
  test('at renewal leaves the old certificate in service until it expires', async () => {
    const story = await tell({ random: seeded(1) });
    const first = story.svid!;
    await story.clock.advanceTo(story.after(6 * HOUR));
    story.ca.failWith('ERR_CA_UNAVAILABLE');
    await story.clock.advanceTo(story.after(18 * HOUR));
    expect(story.svid).toBe(first);
    expect(story.keeper.state.value.kind).toBe('overdue');
    expect(
      story.ca.attemptsBetween(story.after(12 * HOUR), story.after(18 * HOUR)),
    ).toBeGreaterThan(400);
    expect(story.ca.attemptsBetween(story.after(12 * HOUR), story.after(18 * HOUR))).toBeLessThan(
      700,
    );
    await story.clock.advanceTo(story.after(DAY - 1));
    expect(story.svid).toBe(first);
    await story.clock.advanceTo(story.after(DAY));
    expect(story.keeper.state.value).toMatchObject({
      kind: 'unavailable',
      expired: { serial: first.serial },
    });
    expect(story.events.filter(({ event }) => event === 'certificate expired')).toHaveLength(1);
  });

  test('of 12 hours of 24 recovers unattended, with bounded attempts and no gap', async () => {
    const story = await tell({ random: seeded(2), rotation: { ratio: 0.5, jitterRatio: 0.05 } });
    await story.clock.advanceTo(story.after(11 * HOUR));
    story.ca.failWith('ERR_CA_UNAVAILABLE');
    await story.clock.advanceTo(story.after(23 * HOUR));
    story.ca.work();
    await story.clock.advanceBy(MINUTE);
    expect(story.keeper.state.value.kind).toBe('current');
    expect(story.kinds).not.toContain('unavailable');
    expect(story.ca.attempts.length).toBeLessThan((12 * HOUR) / (36 * SECOND) + 20);
  });

  test('C23 of longer than the certificate lives ends in recovery within a minute of its end, without a restart', async () => {
    const story = await tell({ random: seeded(3) });
    story.ca.failWith('ERR_CA_UNAVAILABLE');
    await story.clock.advanceTo(story.after(3 * DAY));
    expect(story.keeper.state.value.kind).toBe('unavailable');
    const { length } = story.ca.attempts;
    await story.clock.advanceBy(HOUR);
    expect(story.ca.attempts.length - length).toBeGreaterThan(60);
    story.ca.work();
    await story.clock.advanceBy(MINUTE);
    expect(story.keeper.state.value.kind).toBe('current');
  });

  test('C21 that comes and goes every second is met in an open moment, at no more than a request a second', async () => {
    const story = await tell({ random: seeded(4) });
    story.ca.behave((request) => {
      if (Math.floor(story.clock.now() / SECOND) % 2 === 0)
        throw new AgentError('ERR_CA_UNAVAILABLE', 'sign: down', { retry: 'soon' });
      return story.ca.issue(request);
    });
    await story.clock.advanceTo(story.after(12 * HOUR + MINUTE));
    expect(story.keeper.state.value.kind).toBe('current');
    const during = story.ca.attempts.slice(1);
    for (const [index, at] of during.entries())
      if (index > 0) expect(at - during[index - 1]!).toBeGreaterThanOrEqual(SECOND);
    await story.clock.advanceBy(HOUR);
    expect(story.ca.attempts).toHaveLength(1 + during.length);
  });

  test('C15 in which it accepts every request and never answers costs one request at a time', async () => {
    const story = await tell({ random: seeded(5) });
    const first = story.svid;
    story.ca.hang();
    await story.clock.advanceTo(story.after(14 * HOUR));
    expect(story.svid).toBe(first);
    expect(story.ca.mostInFlight).toBe(1);
    const attempts = story.ca.attemptsBetween(story.after(12 * HOUR), story.after(14 * HOUR));
    // 1, 2, 4, 8 minutes, then 10 each.
    expect(attempts).toBeGreaterThan((2 * HOUR) / (12 * MINUTE));
    expect(attempts).toBeLessThan((2 * HOUR) / (8 * MINUTE));
    story.ca.work();
    await story.clock.advanceBy(11 * MINUTE);
    expect(story.keeper.state.value.kind).toBe('current');
  });

  test.each([
    [undefined, 60],
    [90_000, 90],
  ])(
    'a CA under --ca-timeout %p is waited for %i seconds: an approver may be a person',
    async (caTimeoutMs, seconds) => {
      const story = await tell({ random: seeded(6), caTimeoutMs, prepare: (ca) => ca.hang(true) });
      await story.clock.advanceTo(story.after((seconds - 1) * SECOND));
      expect(story.keeper.state.value.kind).toBe('starting');
      await story.clock.advanceTo(story.after((seconds + 1) * SECOND));
      expect(story.keeper.state.value).toMatchObject({
        kind: 'unavailable',
        error: { code: 'ERR_TIMEOUT' },
      });
    },
  );

  test.each([
    ['C16 C17 unavailable', 'ERR_CA_UNAVAILABLE', 'soon'],
    ['C17 timed out', 'ERR_TIMEOUT', 'soon'],
    ['C19 unauthenticated', 'ERR_TOKEN', 'soon'],
    ['C20 permission denied', 'ERR_CA_REJECTED', 'slow'],
    ['C20 unimplemented', 'ERR_CA_REJECTED', 'never'],
    ['a broken invariant of ours', 'ERR_BUG', 'never'],
  ] as const)(
    '%s is tried again until the end of the certificate and beyond',
    async (_, code, retry) => {
      const story = await tell({ random: seeded(6) });
      story.ca.failWith(code, { retry });
      await story.clock.advanceTo(story.after(26 * HOUR));
      expect(story.keeper.state.value).toMatchObject({ kind: 'unavailable', error: { code } });
      expect(story.counted('renewals_total', { outcome: code })).toBe(story.ca.attempts.length - 1);
      expect(story.ca.attempts.length).toBeGreaterThan((14 * HOUR) / (54 * SECOND));
      story.ca.work();
      await story.clock.advanceBy(MINUTE);
      expect(story.keeper.state.value.kind).toBe('current');
    },
  );

  test.each([20, 60, 300])(
    'that outlasts a certificate of %d s is over soon after: what its end has hurried costs no long wait',
    async (seconds) => {
      const story = await tell({ random: seeded(8), lifeMs: seconds * SECOND });
      story.ca.failWith('ERR_CA_UNAVAILABLE');
      await story.clock.advanceTo(story.after(1.25 * seconds * SECOND));
      expect(story.keeper.state.value.kind).toBe('unavailable');
      story.ca.work();
      await story.clock.advanceBy(0.5 * seconds * SECOND);
      expect(story.keeper.state.value.kind).toBe('current');
    },
  );

  test('field: a CA that takes longer than an attempt may is asked once, and what it answers counts', async () => {
    const story = await tell({ random: seeded(9), lifeMs: MINUTE });
    story.ca.behave(async (request) => {
      await story.clock.sleepUntil(story.clock.now() + 9 * SECOND);
      return story.ca.issue(request);
    });
    await story.clock.advanceTo(story.after(50 * SECOND));
    expect(story.ca.attempts).toHaveLength(2);
    expect(story.kinds).not.toContain('unavailable');
    expect(story.keeper.state.value).toMatchObject({
      kind: 'current',
      svid: { receivedAt: expect.any(Number) },
    });
    expect(story.keeper.describe().renewals).toBe(2);
  });

  test('field: one that has lost the call is asked anew before the certificate ends', async () => {
    const story = await tell({ random: seeded(10), lifeMs: MINUTE });
    story.ca.hang();
    await story.clock.advanceTo(story.after(31 * SECOND));
    story.ca.work();
    await story.clock.advanceTo(story.after(MINUTE - 1));
    expect(story.ca.mostInFlight).toBe(1);
    expect(story.keeper.state.value.kind).toBe('current');
    expect(story.kinds).not.toContain('unavailable');
  });

  test('that ends in the last minutes of a certificate is noticed before it expires: waits shrink with what remains', async () => {
    const story = await tell({ random: seeded(7) });
    story.ca.failWith('ERR_CA_REJECTED', { retry: 'slow' });
    await story.clock.advanceTo(story.after(DAY - 8 * SECOND));
    story.ca.work();
    await story.clock.advanceTo(story.after(DAY - 1));
    expect(story.keeper.state.value.kind).toBe('current');
    expect(story.kinds).not.toContain('unavailable');
  });
});
