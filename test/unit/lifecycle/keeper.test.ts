import { describe, expect, test } from '@jest/globals';
import { CaNews } from '../../../agent/base/ca-news';
import { AgentError } from '../../../agent/base/errors';
import { Semaphore } from '../../../agent/base/semaphore';
import { createTrustBundle } from '../../../agent/identity/trust-bundle';
import { makeTestCa, TEST_NOW } from '../../support/certs';
import { DAY, HOUR, MINUTE, SECOND, type Story, tell } from '../../support/keeper-story';
import { type Behaviour, type ScriptedCa, testRoots } from '../../support/scripted-ca';
import { settle, TestClock } from '../../support/test-clock';

describe('a keeper', () => {
  test('obtains a certificate at once and renews it at half of its life, whether or not anybody listens', async () => {
    const story = await tell();
    const first = story.svid!;
    expect(story.keeper.state.value).toMatchObject({
      kind: 'current',
      renewAt: story.after(12 * HOUR),
    });
    await story.clock.advanceTo(story.after(12 * HOUR - 1));
    expect(story.svid).toBe(first);
    await story.clock.advanceTo(story.after(12 * HOUR));
    expect(story.svid!.serial).not.toBe(first.serial);
    expect(Buffer.compare(story.svid!.key.spkiDer, first.key.spkiDer)).not.toBe(0);
    await story.clock.advanceTo(story.after(10 * DAY));
    expect(story.ca.attempts).toHaveLength(21);
    expect(story.kinds).toEqual(['starting', ...Array(21).fill('current')]);
    expect(story.counted('renewals_total', { outcome: 'ok' })).toBe(21);
    expect(story.keeper.describe()).toMatchObject({
      source: 'scripted',
      failures: 0,
      attempts: 21,
      renewals: 21,
      lastError: undefined,
    });
  });

  test('that gets no first certificate keeps trying with growing waits, and says so', async () => {
    const story = await tell({
      prepare: (ca) => ca.failWith('ERR_CA_UNAVAILABLE'),
      random: () => 0.5,
    });
    expect(story.keeper.state.value).toMatchObject({
      kind: 'unavailable',
      expired: undefined,
      retryAt: story.after(SECOND),
      error: { code: 'ERR_CA_UNAVAILABLE' },
    });
    await story.clock.advanceBy(2 * MINUTE);
    const waits = story.ca.attempts.map(
      (at, index, all) => (index === 0 ? 0 : at - all[index - 1]!) / SECOND,
    );
    expect(waits).toEqual([0, 1, 2, 4, 8, 16, 32, 45]);
    const said = story.events.filter(
      ({ level, event }) => level === 'warn' && event === 'no certificate yet, retrying',
    );
    expect(said.map(({ facts }) => facts.retryInSeconds)).toEqual([1, 2, 4, 8, 16, 32, 45, 45]);
    expect(story.counted('ca_retries_total', { ca: 'scripted' })).toBe(7);
    story.ca.work();
    await story.clock.advanceBy(45 * SECOND);
    expect(story.keeper.state.value.kind).toBe('current');
    expect(story.keeper.describe()).toMatchObject({
      failures: 0,
      lastError: { code: 'ERR_CA_UNAVAILABLE' },
    });
  });

  test('field A6 keeps a key that a one-time proof was shown with until it has its certificate, and gives up any other that is refused', async () => {
    const keys: string[] = [];
    let isOneTime = true;
    const refuse: Behaviour = async (request) => {
      if (isOneTime) await request.keepKey?.();
      keys.push(Buffer.from(request.csrDer).toString('hex'));
      throw new AgentError('ERR_CA_REJECTED', 'sign: scripted', { retry: 'slow' });
    };
    const story = await tell({ prepare: (ca) => ca.behave(refuse) });
    await story.clock.advanceBy(2 * MINUTE);
    expect([keys.length > 2, new Set(keys).size]).toEqual([true, 1]);
    story.ca.behave((request) => {
      keys.push(Buffer.from(request.csrDer).toString('hex'));
      return story.ca.issue(request);
    });
    await story.clock.advanceBy(MINUTE);
    expect([story.svid !== undefined, new Set(keys).size]).toEqual([true, 1]);
    isOneTime = false;
    story.ca.behave(refuse);
    await story.clock.advanceBy(13 * HOUR);
    expect(new Set(keys).size).toBeGreaterThan(2);
  });

  test('renews now when asked, everybody who asks meanwhile joins, and the timer of the replaced certificate does not fire again', async () => {
    const story = await tell();
    const before = story.svid!;
    await story.clock.advanceBy(HOUR);
    const all = await Promise.all([1, 2, 3].map((each) => story.keeper.renewNow(`reason ${each}`)));
    expect(new Set(all).size).toBe(1);
    expect(story.svid).toBe(all[0]);
    expect(story.svid!.serial).not.toBe(before.serial);
    expect(story.ca.attempts).toHaveLength(2);
    expect(story.events.at(-1)).toMatchObject({
      event: 'certificate renewed',
      facts: { reason: 'reason 1' },
    });
    await story.clock.advanceTo(story.after(13 * HOUR - 1));
    expect(story.ca.attempts).toHaveLength(2);
    await story.clock.advanceBy(1);
    expect(story.ca.attempts).toHaveLength(3);
  });

  test('that is asked to renew and fails tells the asker, keeps the certificate and tries again', async () => {
    const story = await tell({ random: () => 0.5 });
    const before = story.svid;
    story.ca.failWith('ERR_CA_REJECTED', { retry: 'slow' });
    await expect(story.keeper.renewNow('test')).rejects.toMatchObject({ code: 'ERR_CA_REJECTED' });
    expect(story.keeper.state.value).toMatchObject({
      kind: 'overdue',
      svid: before,
      retryAt: story.after(45 * SECOND),
    });
    story.ca.work();
    await story.clock.advanceBy(45 * SECOND);
    expect(story.keeper.state.value.kind).toBe('current');
    expect(story.svid).not.toBe(before);
  });

  test.each(['slow', 'never'] as const)(
    'C20 tries a %s failure again at the cap, for ever',
    async (retry) => {
      const story = await tell({
        prepare: (ca) => ca.failWith('ERR_CA_REJECTED', { retry }),
        random: () => 0.5,
      });
      await story.clock.advanceBy(HOUR);
      expect(story.ca.attempts).toHaveLength(81);
    },
  );

  test("C18 respects the CA's own wish to be left alone for a while", async () => {
    const story = await tell({
      prepare: (ca) =>
        ca.failWith('ERR_CA_UNAVAILABLE', { retry: 'soon', retryAfterMs: 2 * MINUTE }),
    });
    await story.clock.advanceBy(2 * MINUTE - 1);
    expect(story.ca.attempts).toHaveLength(1);
    await story.clock.advanceBy(MINUTE);
    expect(story.ca.attempts).toHaveLength(2);
  });

  test('C15 a CA that never answers is given up after a minute, although it ignores its signal', async () => {
    const story = await tell({ prepare: (ca) => ca.hang(true), random: () => 0.5 });
    expect(story.keeper.describe().attemptSince).toBe(story.startedAt);
    await story.clock.advanceBy(MINUTE);
    expect(story.keeper.state.value).toMatchObject({
      kind: 'unavailable',
      error: {
        code: 'ERR_TIMEOUT',
        message: 'sign at scripted: no answer within 60 s',
        hint: expect.stringContaining('--ca-timeout'),
      },
    });
    story.ca.work();
    await story.clock.advanceBy(SECOND);
    expect(story.keeper.state.value.kind).toBe('current');
    expect(story.ca.mostInFlight).toBe(1);
  });

  test('C30 an answer that comes after its deadline never becomes current', async () => {
    const late: (() => void)[] = [];
    const story = await tell({
      prepare: (ca) =>
        ca.behave((request, _signal, attempt) =>
          attempt === 1
            ? new Promise((resolve) => late.push(() => resolve(ca.issue(request))))
            : ca.issue(request),
        ),
    });
    await story.clock.advanceBy(MINUTE + 2 * SECOND);
    const current = story.svid!;
    late[0]!();
    await settle();
    expect(story.svid).toBe(current);
    expect(story.kinds).toEqual(['starting', 'unavailable', 'current']);
    expect(story.keeper.describe().renewals).toBe(1);
  });

  test('close ends a hanging attempt, a wait and every loop at once', async () => {
    const hanging = await tell({ prepare: (ca) => ca.hang(true) });
    await hanging.keeper.close();
    const waiting = await tell();
    await waiting.keeper.close();
    expect([hanging.clock.nextWakeAt(), waiting.clock.nextWakeAt()]).toEqual([
      undefined,
      undefined,
    ]);
    await waiting.clock.advanceBy(DAY);
    expect(waiting.ca.attempts).toHaveLength(1);
    expect(waiting.keeper.state.value.kind).toBe('current');
    await expect(waiting.keeper.renewNow('late')).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  test('listens to no jump of the clock once it is closed', async () => {
    const clock = new TestClock();
    const listeners = new Set<() => void>();
    const onJump = clock.onJump.bind(clock);
    clock.onJump = (listener) => {
      const stop = onJump(listener);
      listeners.add(stop);
      return () => {
        stop();
        listeners.delete(stop);
      };
    };
    const story = await tell({ clock });
    expect(listeners.size).toBeGreaterThan(0);
    await story.keeper.close();
    expect(listeners.size).toBe(0);
  });

  test('says why the next renewal is when it is', async () => {
    const story = await tell();
    expect(story.keeper.describe().plan[0]).toMatchObject({
      rule: 'share of the usable validity',
      at: story.after(12 * HOUR),
    });
    story.ca.failWith('ERR_CA_UNAVAILABLE');
    await story.clock.advanceTo(story.after(12 * HOUR));
    const [retry] = story.keeper.describe().plan;
    expect(retry).toMatchObject({
      rule: 'retry',
      detail: 'failures in a row: 1; the last: sign: scripted ERR_CA_UNAVAILABLE',
    });
    expect(retry!.at).toBeGreaterThan(story.clock.now());
  });
});

describe('what the CA tells', () => {
  test('another signer renews the certificate now', async () => {
    const story = await tell();
    await story.clock.advanceBy(MINUTE);
    story.ca.tell('signer');
    await settle();
    expect(story.ca.attempts).toHaveLength(2);
    expect(story.events.at(-1)!.facts.reason).toBe('another signer');
  });

  test('another signer during an attempt makes one more follow it', async () => {
    const story = await tell();
    await story.clock.advanceBy(MINUTE);
    let answer: () => void = () => undefined;
    story.ca.behave(
      (request) => new Promise((resolve) => (answer = () => resolve(story.ca.issue(request)))),
    );
    void story.keeper.renewNow('first');
    await settle();
    story.ca.tell('signer');
    story.ca.work();
    answer();
    await story.clock.advanceBy(SECOND);
    expect(story.ca.attempts).toHaveLength(3);
    await story.clock.advanceBy(HOUR);
    expect(story.ca.attempts).toHaveLength(3);
  });

  test('a storm of changes makes no more than one request a second', async () => {
    const story = await tell();
    for (let round = 0; round < 100; round += 1) {
      story.ca.tell('signer');
      await story.clock.advanceBy(100);
    }
    expect(story.ca.attempts.length).toBeLessThanOrEqual(12);
  });

  test('a changed credential ends the wait of a failed attempt at once', async () => {
    const story = await tell({ prepare: (ca) => ca.failWith('ERR_TOKEN', { retry: 'slow' }) });
    await story.clock.advanceBy(10 * SECOND);
    expect(story.ca.attempts).toHaveLength(1);
    story.ca.work();
    story.ca.tell('credential');
    await settle();
    expect(story.keeper.state.value.kind).toBe('current');
  });

  test('a credential that changes while an attempt fails makes the next one follow at once', async () => {
    const story = await tell({ prepare: (ca) => ca.hang() });
    story.ca.tell('credential');
    story.ca.work();
    await story.clock.advanceBy(MINUTE + SECOND);
    expect(story.keeper.state.value.kind).toBe('current');
  });

  const roots = ({ ca }: Story) => ca.trust.set(ca.signer.bundle);
  const credential = ({ ca }: Story) => ca.tell('credential');
  test.each<[string, readonly ((story: Story) => void)[]]>([
    ['roots', [roots]],
    ['roots, then a credential', [roots, credential]],
    ['a credential, then roots', [credential, roots]],
  ])(
    'one event, told as %s, is one certificate, also where it is told again while that is on its way',
    async (_, events) => {
      const story = await tell({ prepare: (ca) => ca.trust.set(undefined) });
      await story.clock.advanceBy(10 * SECOND);
      const before = story.ca.attempts.length;
      story.ca.behave(async (request) => {
        story.ca.tell('credential');
        return story.ca.issue(request);
      });
      for (const tellOne of events) tellOne(story);
      await story.clock.advanceBy(MINUTE);
      expect([story.keeper.state.value.kind, story.ca.attempts.length]).toEqual([
        'current',
        before + 1,
      ]);
    },
  );

  test('a credential that dies first brings the renewal forward, and a fresh one puts it back', async () => {
    const story = await tell({
      prepare: (ca, clock) => (ca.credentialExpires = clock.now() + 10 * HOUR),
    });
    expect(story.keeper.state.value).toMatchObject({
      kind: 'current',
      renewAt: story.after(9 * HOUR),
    });
    story.ca.credentialExpires = story.after(30 * DAY);
    story.ca.tell('credential');
    expect(story.keeper.state.value).toMatchObject({
      kind: 'current',
      renewAt: story.after(12 * HOUR),
    });
    await story.clock.advanceTo(story.after(12 * HOUR - 1));
    expect(story.ca.attempts).toHaveLength(1);
    await story.clock.advanceTo(story.after(12 * HOUR));
    expect(story.ca.attempts).toHaveLength(2);
  });

  test('a wider trust bundle is published at once and costs no certificate; the same bundle is no event', async () => {
    const story = await tell();
    const [old, next] = await testRoots();
    const before = story.states.length;
    const both = createTrustBundle([old.certificateDer, next.certificateDer]);
    story.ca.trust.set(both);
    expect(story.keeper.state.value.bundle).toBe(both);
    story.ca.trust.set(createTrustBundle([next.certificateDer, old.certificateDer]));
    await story.clock.advanceBy(HOUR);
    expect(story.states).toHaveLength(before + 1);
    expect(story.ca.attempts).toHaveLength(1);
  });

  test('a trust bundle that no longer covers the certificate is published first; the certificate stays until its replacement comes', async () => {
    const story = await tell();
    const [, next] = await testRoots();
    const before = story.svid!;
    await story.clock.advanceBy(HOUR);
    story.ca.hang();
    story.ca.trust.set(next.bundle);
    expect(story.keeper.state.value).toMatchObject({
      kind: 'current',
      svid: before,
      bundle: next.bundle,
    });
    expect(story.events.at(-1)).toMatchObject({ level: 'warn', facts: { serial: before.serial } });
    await settle();
    expect(story.ca.attempts).toHaveLength(2);
    story.ca.signer = next;
    story.ca.work();
    await story.clock.advanceBy(2 * MINUTE);
    expect(story.svid!.bundle).toBe(next.bundle);
    expect(story.svid!.serial).not.toBe(before.serial);
  });

  test('a bundle that becomes known after a failure for the lack of it ends the wait', async () => {
    const story = await tell({ prepare: (ca) => ca.trust.set(undefined) });
    expect(story.keeper.state.value).toMatchObject({
      kind: 'unavailable',
      bundle: undefined,
      error: { code: 'ERR_CA_UNAVAILABLE' },
    });
    const [old] = await testRoots();
    await story.clock.advanceBy(900);
    story.ca.trust.set(old.bundle);
    expect(story.keeper.state.value.bundle).toBe(old.bundle);
    await story.clock.advanceBy(100);
    expect(story.keeper.state.value.kind).toBe('current');
  });
});

describe('a warm start', () => {
  test('serves a certificate that is still valid before any attempt, and renews it when its first plan was due', async () => {
    const first = await tell();
    const kept = first.svid!;
    await first.keeper.close();
    await first.clock.advanceBy(5 * HOUR);
    const story = await tell({ warmStart: kept, clock: first.clock });
    expect(story.states[0]!.state).toMatchObject({
      kind: 'current',
      svid: kept,
      renewAt: first.after(12 * HOUR),
    });
    expect(story.ca.attempts).toEqual([]);
    await story.clock.advanceTo(first.after(12 * HOUR));
    expect(story.ca.attempts).toHaveLength(1);
  });

  test('that is overdue renews behind the certificate in service', async () => {
    const first = await tell();
    const kept = first.svid!;
    await first.keeper.close();
    await first.clock.advanceBy(20 * HOUR);
    const story = await tell({ warmStart: kept, clock: first.clock });
    expect(story.states[0]!.state).toMatchObject({ kind: 'current', svid: kept });
    expect(story.svid!.serial).not.toBe(kept.serial);
    expect(story.kinds).toEqual(['current', 'current']);
  });

  test('that comes too late serves nobody, tells what has expired beside what hinders the next, and ends by it', async () => {
    const first = await tell();
    const kept = first.svid!;
    await first.keeper.close();
    await first.clock.advanceBy(10 * DAY);
    const story = await tell({
      warmStart: kept,
      clock: first.clock,
      prepare: (ca) => ca.failWith('ERR_CA_REJECTED', { retry: 'slow' }),
    });
    expect(story.keeper.state.value).toMatchObject({
      kind: 'unavailable',
      expired: { serial: kept.serial },
      error: { code: 'ERR_CA_REJECTED' },
    });
    expect(story.events.filter(({ level }) => level === 'error')).toMatchObject([
      { event: 'certificate expired', facts: { serial: kept.serial } },
      { event: 'renewal failed and the previous certificate has expired' },
    ]);
    story.ca.work();
    await story.clock.advanceBy(MINUTE);
    expect(story.kinds.at(-1)).toBe('current');
    expect(story.svid!.serial).not.toBe(kept.serial);
  });
});

describe('the end of a certificate', () => {
  /** A root of one key that ends twice: soon, and late. */
  const twoRoots = async () => {
    const renewed = await makeTestCa({
      name: 'renewed',
      notBeforeAt: TEST_NOW - DAY,
      notAfterAt: TEST_NOW + 100 * DAY,
    });
    const old = await makeTestCa({
      name: 'renewed',
      privateKey: renewed.privateKey,
      notBeforeAt: TEST_NOW - DAY,
      notAfterAt: TEST_NOW + HOUR,
    });
    return { renewed, old, both: createTrustBundle([old.certificateDer, renewed.certificateDer]) };
  };
  const endsIn = (story: Story) => (story.svid!.notAfterAt - story.startedAt) / HOUR;

  test('field A2a is that of the longest path, so the old root takes nothing with it', async () => {
    const { renewed, both } = await twoRoots();
    const story = await tell({
      prepare: (ca) => {
        ca.signer = renewed;
        ca.trust.set(both);
      },
    });
    expect(endsIn(story)).toBe(24);
    await story.clock.advanceTo(story.after(12 * HOUR - 1));
    expect(story.kinds).toEqual(['starting', 'current']);
  });

  test('moves with the bundle, and the plan with it', async () => {
    const { old, renewed, both } = await twoRoots();
    const story = await tell({
      prepare: (ca) => {
        ca.signer = renewed;
        ca.trust.set(old.bundle);
      },
    });
    const { serial } = story.svid!;
    expect(endsIn(story)).toBe(1);
    expect(story.svid!.warnings).toEqual([
      expect.stringContaining('the leaf outlives what signed it'),
    ]);
    story.ca.trust.set(both);
    expect(endsIn(story)).toBe(24);
    expect(story.svid!.warnings).toEqual([]);
    expect(story.keeper.state.value).toMatchObject({
      kind: 'current',
      bundle: both,
      renewAt: story.after(12 * HOUR),
    });
    story.ca.trust.set(old.bundle);
    expect(endsIn(story)).toBe(1);
    expect(story.keeper.state.value).toMatchObject({
      kind: 'current',
      renewAt: story.after(HOUR / 2),
    });
    expect(story.svid!.serial).toBe(serial);
  });

  test('is that of another path once the first has ended, where one has begun meanwhile', async () => {
    const { old, renewed } = await twoRoots();
    const later = await makeTestCa({
      name: 'renewed',
      privateKey: renewed.privateKey,
      notBeforeAt: TEST_NOW + HOUR / 2,
    });
    const story = await tell({
      prepare: (ca) => {
        ca.signer = renewed;
        ca.trust.set(createTrustBundle([old.certificateDer, later.certificateDer]));
      },
    });
    expect(endsIn(story)).toBe(1);
    story.ca.failWith('ERR_CA_UNAVAILABLE');
    await story.clock.advanceTo(story.after(2 * HOUR));
    expect(endsIn(story)).toBe(24);
    expect(story.kinds).not.toContain('unavailable');
  });
});

describe('field B3 a certificate that is not valid yet', () => {
  const ahead = (ca: ScriptedCa, clock: TestClock, ms: number) =>
    ca.behave((request) => ca.issue(request, { notBeforeAt: clock.now() + ms }));

  test('replaces the one in service when it begins, not before', async () => {
    const story = await tell();
    const first = story.svid!;
    ahead(story.ca, story.clock, 55 * SECOND);
    const rotated = story.keeper.renewNow('test');
    await story.clock.advanceBy(54 * SECOND);
    expect(story.svid).toBe(first);
    expect(story.keeper.describe().attemptSince).toBe(story.startedAt);
    await story.clock.advanceBy(SECOND);
    expect(story.svid).toBe(await rotated);
    expect(story.svid!.serial).not.toBe(first.serial);
    expect(story.ca.attempts).toHaveLength(2);
  });

  test('is taken at once where nothing else is valid, or when the one in service ends', async () => {
    const started = await tell({ prepare: (ca, clock) => ahead(ca, clock, 55 * SECOND) });
    expect(started.svid).toBeDefined();
    const story = await tell({ lifeMs: MINUTE });
    ahead(story.ca, story.clock, 50 * SECOND);
    await story.clock.advanceTo(story.after(MINUTE - SECOND - 1));
    const first = story.svid!;
    await story.clock.advanceTo(story.after(MINUTE - SECOND));
    expect(story.svid!.serial).not.toBe(first.serial);
    expect(story.kinds).not.toContain('unavailable');
  });

  test('that no longer verifies when it begins is refused, and asked for again', async () => {
    const story = await tell();
    const [, next] = await testRoots();
    ahead(story.ca, story.clock, 55 * SECOND);
    const rotated = story.keeper.renewNow('test').catch((error: unknown) => error);
    await settle();
    story.ca.trust.set(next.bundle);
    story.ca.signer = next;
    story.ca.work();
    await story.clock.advanceBy(MINUTE);
    expect(await rotated).toMatchObject({ code: 'ERR_CA_RESPONSE' });
    expect(story.keeper.state.value).toMatchObject({
      kind: 'current',
      svid: { bundle: next.bundle },
    });
  });

  test('does not keep a keeper from closing', async () => {
    const story = await tell();
    ahead(story.ca, story.clock, 55 * SECOND);
    const rotated = story.keeper.renewNow('test').catch((error: unknown) => error);
    await settle();
    await story.keeper.close();
    expect(await rotated).toMatchObject({ code: 'ERR_ABORTED' });
  });
});

/** The seconds between the attempts of a story since `from`. */
function waits({ ca }: Story, from = 0): number[] {
  return ca.attempts
    .slice(from)
    .flatMap((at, index, all) => (index === 0 ? [] : [(at - all[index - 1]!) / SECOND]));
}

describe('what a failure costs in waiting', () => {
  test('field: five attempts without a token are not charged to the CA that restarts when there is one', async () => {
    const story = await tell({ prepare: (ca) => ca.failWith('ERR_TOKEN'), random: () => 0.5 });
    await story.clock.advanceBy(20 * SECOND);
    expect(waits(story)).toEqual([1, 2, 4, 8]);
    story.ca.failWith('ERR_CA_UNAVAILABLE');
    await story.clock.advanceBy(20 * SECOND);
    expect(waits(story, 5)).toEqual([1, 2, 4]);
    expect(story.keeper.describe().failures).toBe(9);
  });

  test('field: begins anew with a changed credential, though the trouble is of the same kind', async () => {
    const story = await tell({
      prepare: (ca) => ca.failWith('ERR_CA_UNAVAILABLE'),
      random: () => 0.5,
    });
    await story.clock.advanceBy(40 * SECOND);
    story.ca.tell('credential');
    await story.clock.advanceBy(4 * SECOND);
    expect(waits(story, story.ca.attempts.length - 3)).toEqual([1, 2]);
  });

  test('field: begins anew where the trust bundle becomes known', async () => {
    const story = await tell({ prepare: (ca) => ca.trust.set(undefined), random: () => 0.5 });
    await story.clock.advanceBy(40 * SECOND);
    story.ca.failWith('ERR_CA_UNAVAILABLE');
    const before = story.ca.attempts.length;
    story.ca.trust.set((await testRoots())[0].bundle);
    await story.clock.advanceBy(4 * SECOND);
    expect(waits(story, before)).toEqual([1, 2]);
  });

  test('field: a refusal that may be an outage is tried again from a second on while there is no certificate, and slowly with one', async () => {
    const story = await tell({
      prepare: (ca) => ca.failWith('ERR_CA_REJECTED', { retry: 'unsure' }),
      random: () => 0.5,
    });
    await story.clock.advanceBy(10 * SECOND);
    expect(waits(story)).toEqual([1, 2, 4]);
    story.ca.work();
    await story.clock.advanceBy(10 * SECOND);
    expect(story.keeper.state.value.kind).toBe('current');
    story.ca.failWith('ERR_CA_REJECTED', { retry: 'unsure' });
    await expect(story.keeper.renewNow('test')).rejects.toMatchObject({ code: 'ERR_CA_REJECTED' });
    expect(story.keeper.state.value).toMatchObject({
      kind: 'overdue',
      retryAt: story.clock.now() + 45 * SECOND,
    });
  });
});

describe('the others who ask the same CA', () => {
  /** One that has waited for half an hour in vain, and one that gets a certificate. */
  const siblings = async (error: Parameters<ScriptedCa['failWith']>) => {
    const news = new CaNews();
    const waiting = await tell({ news, random: () => 0.5, prepare: (ca) => ca.failWith(...error) });
    await waiting.clock.advanceBy(30 * MINUTE + SECOND);
    const answered = async () => {
      waiting.ca.work();
      const before = waiting.ca.attempts.length;
      const sibling = await tell({ news, clock: waiting.clock });
      expect(sibling.keeper.state.value.kind).toBe('current');
      await settle();
      return waiting.ca.attempts.length - before;
    };
    return { waiting, answered, news };
  };

  test.each<[string, Parameters<ScriptedCa['failWith']>]>([
    ['cannot be reached', ['ERR_CA_UNAVAILABLE']],
    ['does not answer', ['ERR_TIMEOUT']],
    ['may have refused for want of a review', ['ERR_CA_REJECTED', { retry: 'unsure' }]],
  ])('field: are woken when a CA that %s answers one of them', async (_, error) => {
    const { waiting, answered } = await siblings(error);
    expect(await answered()).toBe(1);
    expect(waiting.keeper.state.value.kind).toBe('current');
    expect(waiting.events.at(-1)).toMatchObject({
      facts: { reason: 'the CA answers other workloads' },
    });
  });

  test.each<[string, Parameters<ScriptedCa['failWith']>]>([
    ['no token of its own', ['ERR_TOKEN']],
    ['a request that was refused', ['ERR_CA_REJECTED', { retry: 'slow' }]],
    ['been told to stay away', ['ERR_CA_UNAVAILABLE', { retry: 'soon', retryAfterMs: MINUTE }]],
  ])('are not where one has %s', async (_, error) => {
    const { answered } = await siblings(error);
    expect(await answered()).toBe(0);
  });

  test('are woken once in a while only, and renew nothing that they have', async () => {
    const { waiting, news } = await siblings(['ERR_CA_UNAVAILABLE']);
    const before = waiting.ca.attempts.length;
    for (let second = 0; second < 40; second += 1) {
      news.answered();
      await waiting.clock.advanceBy(SECOND);
    }
    expect(waiting.ca.attempts.length - before).toBeLessThanOrEqual(2);
    waiting.ca.work();
    await waiting.clock.advanceBy(MINUTE);
    const { length } = waiting.ca.attempts;
    news.answered();
    await waiting.clock.advanceBy(MINUTE);
    expect(waiting.ca.attempts).toHaveLength(length);
  });
});

describe('a short life', () => {
  test('field: leaves room for other attempts, however long one takes', async () => {
    const story = await tell({ lifeMs: 20 * SECOND, random: () => 0.5 });
    story.ca.hang();
    await story.clock.advanceTo(story.after(20 * SECOND - 1));
    expect(story.kinds).not.toContain('unavailable');
    // Calls of 5, 2.5 and 1.25 s.
    expect(
      story.ca.attemptsBetween(story.after(10 * SECOND), story.after(20 * SECOND)),
    ).toBeGreaterThanOrEqual(3);
    expect(story.ca.mostInFlight).toBe(1);
  });

  test('field: is not waited away in a queue: after a quarter of what remains one goes in unbidden', async () => {
    const clock = new TestClock();
    const turns = new Semaphore({ slots: 1, holdMs: HOUR }, clock);
    const turn = (signal: AbortSignal) => turns.enter(signal);
    const story = await tell({ clock, turn, lifeMs: 20 * SECOND });
    const leave = await turn(new AbortController().signal);
    await clock.advanceTo(story.after(12.5 * SECOND - 1));
    expect(story.ca.attempts).toHaveLength(1);
    await clock.advanceTo(story.after(12.5 * SECOND));
    expect(story.ca.attempts).toHaveLength(2);
    expect(story.keeper.describe().renewals).toBe(2);
    leave();
  });

  test('waits for its turn as long as it takes where there is nothing to lose', async () => {
    const clock = new TestClock();
    const turns = new Semaphore({ slots: 1, holdMs: DAY }, clock);
    const leave = await turns.enter(new AbortController().signal);
    const story = await tell({ clock, turn: (signal) => turns.enter(signal) });
    await clock.advanceBy(HOUR);
    expect(story.ca.attempts).toHaveLength(0);
    leave();
    await settle();
    expect(story.keeper.state.value.kind).toBe('current');
  });
});
