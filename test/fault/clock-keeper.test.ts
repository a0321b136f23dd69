import { describe, expect, test } from '@jest/globals';
import { systemClock } from '../../agent/base/clock';
import { firstValue } from '../../agent/base/watched';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { createTrustBundle } from '../../agent/identity/trust-bundle';
import { createKeeper } from '../../agent/lifecycle/keeper';
import { TEST_ID } from '../support/certs';
import { DAY, HOUR, MINUTE, SECOND, type Story, tell } from '../support/keeper-story';
import { underLoad } from '../support/load';
import { instantEngine, ScriptedCa, testRoots } from '../support/scripted-ca';
import { seeded } from '../support/seeded';
import { testDeps } from '../support/test-deps';

const YEAR = 365 * DAY;

/** A CA on a clock of its own, which goes on as it was while ours jumps. */
function ownClock(story: Story): { jumpTo: (at: number) => Promise<void> } {
  let ahead = 0;
  const truth = () => story.clock.now() + ahead;
  story.ca.behave((request) =>
    story.ca.issue(request, { notBeforeAt: truth() - 2 * MINUTE, notAfterAt: truth() + DAY }),
  );
  return {
    jumpTo: (at) => {
      ahead += story.clock.now() - at;
      return story.clock.jumpTo(at);
    },
  };
}

const jumpsLogged = (story: Story) =>
  story.events.filter(({ event }) => event === 'wall clock jumped, or the machine was suspended');

describe('F1 a wall clock that jumps forward', () => {
  test.each([
    [1, 'current', 1],
    [12, 'current', 2],
    [23.9, 'current', 2],
    [48, 'current', 2],
  ] as const)(
    'by %d h leaves a certificate in service that is due later',
    async (hours, kind, attempts) => {
      const story = await tell();
      await story.clock.advanceBy(MINUTE);
      await story.clock.jumpTo(story.clock.now() + hours * HOUR);
      await story.clock.advanceBy(MINUTE);
      expect(story.keeper.state.value.kind).toBe(kind);
      expect(story.svid!.notAfterAt).toBeGreaterThan(story.clock.now());
      expect(story.ca.attempts).toHaveLength(attempts);
      expect(jumpsLogged(story)).toMatchObject([
        { level: 'warn', facts: { bySeconds: hours * 3_600 } },
      ]);
    },
  );

  test('beyond the expiry while the CA is away is told as expired at once', async () => {
    const story = await tell({ random: seeded(1) });
    story.ca.failWith('ERR_CA_UNAVAILABLE');
    await story.clock.jumpTo(story.after(25 * HOUR));
    expect(story.keeper.state.value).toMatchObject({
      kind: 'unavailable',
      expired: { serial: expect.any(String) },
    });
  });
});

describe('F2 a wall clock that is set back', () => {
  test.each([
    ['an hour', HOUR],
    ['a year', YEAR],
  ])(
    'by %s renews now, as the certificate is not valid yet by it, and no more than once',
    async (_, ms) => {
      const story = await tell();
      await story.clock.advanceBy(MINUTE);
      await story.clock.jumpTo(story.clock.now() - ms);
      await story.clock.advanceBy(MINUTE);
      expect(story.svid!.notBeforeAt).toBeLessThan(story.clock.now());
      expect(story.ca.attempts).toHaveLength(2);
      expect(
        story.events.filter(({ event }) =>
          event.startsWith('certificate not yet valid by this clock'),
        ),
      ).toHaveLength(1);
      await story.clock.advanceBy(11 * HOUR);
      expect(story.ca.attempts).toHaveLength(2);
      await story.clock.advanceBy(HOUR);
      expect(story.ca.attempts).toHaveLength(3);
    },
  );

  test('by a year against a CA with the right time serves on, tries without a storm and recovers when it is put right', async () => {
    const story = await tell({ random: seeded(2) });
    const { jumpTo } = ownClock(story);
    const first = story.svid;
    await story.clock.advanceBy(HOUR);
    await jumpTo(story.clock.now() - YEAR);
    await story.clock.advanceBy(6 * HOUR);
    expect(story.keeper.state.value).toMatchObject({
      kind: 'overdue',
      svid: first,
      error: { code: 'ERR_CA_RESPONSE' },
    });
    expect(story.ca.attempts.length).toBeGreaterThan((6 * HOUR) / (55 * SECOND));
    expect(story.ca.attempts.length).toBeLessThan((6 * HOUR) / (35 * SECOND));
    await jumpTo(story.clock.now() + YEAR);
    await story.clock.advanceBy(MINUTE);
    expect(story.keeper.state.value.kind).toBe('current');
    expect(story.kinds).not.toContain('unavailable');
  });

  test('by less than the certificate is old renews at its age, not at its hour', async () => {
    const story = await tell();
    ownClock(story);
    await story.clock.advanceTo(story.after(11 * HOUR));
    await story.clock.jumpTo(story.after(5 * MINUTE));
    await story.clock.advanceBy(HOUR - 1);
    expect(story.ca.attempts).toHaveLength(1);
    expect(story.keeper.describe().plan[0]).toMatchObject({
      rule: 'renewal at its age, not at its hour',
      at: story.clock.now() + 1,
    });
    // Status, metric and service manager say what the plan says.
    expect(story.keeper.state.value).toMatchObject({
      kind: 'current',
      renewAt: story.clock.now() + 1,
    });
    await story.clock.advanceBy(1);
    expect(story.ca.attempts).toHaveLength(2);
  });

  test.each<[string, (story: Story) => Promise<void>]>([
    ['nothing more', async () => undefined],
    ['it is set back again', (story) => story.clock.jumpTo(story.after(4 * HOUR))],
    ['a credential changes', async ({ ca }) => ca.tell('credential')],
    [
      'the bundle changes',
      async ({ ca }) =>
        ca.trust.set(
          createTrustBundle((await testRoots()).map(({ certificateDer }) => certificateDer)),
        ),
    ],
    ['it is put right', (story) => story.clock.jumpTo(story.after(6 * HOUR))],
  ])(
    'and is planned for the instant that plan and state alike say, also after %s',
    async (_, change) => {
      const story = await tell();
      ownClock(story);
      await story.clock.advanceTo(story.after(6 * HOUR));
      await story.clock.jumpTo(story.after(5 * HOUR));
      await change(story);
      await story.clock.advanceBy(SECOND);
      const { dueAt, plan } = story.keeper.describe();
      expect(story.keeper.state.value).toMatchObject({ kind: 'current', renewAt: dueAt });
      expect(plan[0]!.at).toBe(dueAt);
    },
  );

  test('while an attempt waits for its retry puts the retry off by nothing', async () => {
    const story = await tell({
      prepare: (ca) => ca.failWith('ERR_CA_REJECTED', { retry: 'slow' }),
      random: () => 0.5,
    });
    await story.clock.advanceBy(30 * SECOND);
    await story.clock.jumpTo(story.clock.now() - YEAR);
    story.ca.work();
    await story.clock.advanceBy(15 * SECOND);
    expect(story.keeper.state.value.kind).toBe('current');
  });

  test('makes an expired certificate valid again, for as long as it lasts', async () => {
    const story = await tell({ random: seeded(3) });
    story.ca.failWith('ERR_CA_UNAVAILABLE');
    await story.clock.advanceTo(story.after(DAY + HOUR));
    expect(story.keeper.state.value.kind).toBe('unavailable');
    await story.clock.jumpTo(story.after(23 * HOUR));
    expect(story.keeper.state.value.kind).toBe('overdue');
    await story.clock.advanceBy(HOUR);
    expect(story.keeper.state.value.kind).toBe('unavailable');
  });
});

describe('F3 a machine that was suspended for 16 hours', () => {
  test('renews within a minute of waking', async () => {
    const story = await tell();
    await story.clock.advanceBy(HOUR);
    await story.clock.jumpTo(story.clock.now() + 16 * HOUR);
    await story.clock.advanceBy(MINUTE);
    expect(story.ca.attempts).toHaveLength(2);
    expect(story.kinds).toEqual(['starting', 'current', 'current']);
  });

  test('with certificate and credential both expired recovers as soon as the credential is fresh', async () => {
    const story = await tell({ lifeMs: 10 * HOUR, random: seeded(4) });
    story.ca.failWith('ERR_TOKEN', { retry: 'slow' });
    await story.clock.jumpTo(story.after(16 * HOUR));
    expect(story.keeper.state.value).toMatchObject({
      kind: 'unavailable',
      expired: { serial: expect.any(String) },
    });
    await story.clock.advanceBy(10 * SECOND);
    story.ca.work();
    story.ca.tell('credential');
    await story.clock.advanceBy(SECOND);
    expect(story.keeper.state.value.kind).toBe('current');
  });
});

test('F4 an agent five minutes behind its CA gets nothing until its clock is right, says why and makes no storm', async () => {
  const story = await tell({
    random: seeded(5),
    prepare: (ca, clock) =>
      ca.behave((request) => ca.issue(request, { notBeforeAt: clock.now() + 5 * MINUTE })),
  });
  await story.clock.advanceBy(10 * MINUTE);
  expect(story.keeper.state.value).toMatchObject({
    kind: 'unavailable',
    error: { code: 'ERR_CA_RESPONSE', hint: expect.stringContaining('clock') },
  });
  expect(story.ca.attempts.length).toBeLessThan(20);
  story.ca.behave((request) =>
    story.ca.issue(request, { notBeforeAt: story.clock.now() + 3 * SECOND }),
  );
  await story.clock.advanceBy(MINUTE);
  expect(story.keeper.state.value.kind).toBe('current');
});

test.each([
  ['60 days', 60 * DAY],
  ['ten years', 3650 * DAY],
])(
  'F5 a certificate of %s, whose half no timer can hold, is renewed once, at its half',
  async (_, lifeMs) => {
    const story = await tell({ lifeMs });
    await story.clock.advanceTo(story.after(lifeMs / 2 - 1));
    expect(story.ca.attempts).toHaveLength(1);
    await story.clock.advanceBy(1);
    expect(story.ca.attempts).toHaveLength(2);
  },
);

test.each([
  ['10 s', 10 * SECOND, 13],
  ['2 s', 2 * SECOND, 61],
  ['1 s', SECOND, 61],
])('F6 a certificate of %s never costs more than a request a second', async (_, lifeMs, most) => {
  const story = await tell({ lifeMs });
  await story.clock.advanceBy(MINUTE);
  expect(story.ca.attempts.length).toBeLessThanOrEqual(most);
  expect(story.ca.attempts.length).toBeGreaterThan(most / 2);
  for (const [index, at] of story.ca.attempts.entries())
    if (index > 0) expect(at - story.ca.attempts[index - 1]!).toBeGreaterThanOrEqual(SECOND);
});

test('F7 a process that stood still at the instant of renewal renews right after', async () => {
  const lifeMs = 4 * SECOND;
  const ca = new ScriptedCa((await testRoots())[0], systemClock, lifeMs);
  const keeper = createKeeper(
    {
      ca,
      id: parseSpiffeId(TEST_ID),
      engine: await instantEngine(),
      keyAlgorithm: 'ecdsa-p256',
      ttlMs: lifeMs,
      rotation: { ratio: 0.5, jitterRatio: 0 },
      warmStart: undefined,
    },
    testDeps(),
  );
  try {
    const first = await firstValue(keeper.state, (state) => state.kind === 'current');
    // Written certificates have whole seconds, so the plan says when.
    const dueInMs = (first as { renewAt: number }).renewAt - systemClock.now();
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, dueInMs + 500);
    const awakeAt = systemClock.now();
    await firstValue(keeper.state, (state) => state !== first && state.kind === 'current');
    expect(systemClock.now() - awakeAt).toBeLessThan(underLoad(250));
    expect(ca.attempts).toHaveLength(2);
  } finally {
    await keeper.close();
  }
});

test('F8 steps of a second every ten seconds for an hour cost no request', async () => {
  const story = await tell();
  for (let step = 0; step < 360; step += 1) {
    await story.clock.advanceBy(10 * SECOND);
    await story.clock.jumpTo(story.clock.now() + (step % 2 === 0 ? -SECOND : SECOND));
  }
  expect(story.ca.attempts).toHaveLength(1);
  expect(jumpsLogged(story)).toEqual([]);
});

test('F10 jitter is drawn once a certificate: neither looking, nor a new credential, nor a new bundle moves the plan', async () => {
  let draws = 0;
  const chance = seeded(6);
  const story = await tell({
    rotation: { ratio: 0.5, jitterRatio: 0.05 },
    random: () => {
      draws += 1;
      return chance();
    },
  });
  const { renewAt } = story.keeper.state.value as { renewAt: number };
  expect(renewAt).toBeLessThan(story.after(12 * HOUR));
  expect(renewAt).toBeGreaterThan(story.after(10.8 * HOUR - 1));
  for (let look = 0; look < 10; look += 1) {
    story.keeper.describe();
    story.ca.tell('credential');
    await story.clock.advanceBy(HOUR);
    await story.clock.jumpTo(story.clock.now() + 10 * SECOND);
  }
  expect(story.keeper.state.value).toMatchObject({ kind: 'current', renewAt });
  expect(draws).toBe(1);
});
