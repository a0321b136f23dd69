import { afterEach, describe, expect, test } from '@jest/globals';
import { withDeadline } from '../../../agent/base/clock';
import { AgentError } from '../../../agent/base/errors';
import type { Metrics } from '../../../agent/base/metrics';
import { parseSpiffeId } from '../../../agent/identity/spiffe-id';
import { createTrustBundle } from '../../../agent/identity/trust-bundle';
import { createKeeper } from '../../../agent/lifecycle/keeper';
import { createFailover, type Failover } from '../../../ca-client/failover';
import { makeTestCa, TEST_ID, type TestCa } from '../../support/certs';
import { HOUR, MINUTE, SECOND } from '../../support/keeper-story';
import { instantEngine, ScriptedCa, testRoots } from '../../support/scripted-ca';
import { settle, TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';

const id = parseSpiffeId(TEST_ID);
const bundleOf = (...roots: readonly TestCa[]) =>
  createTrustBundle(roots.map(({ certificateDer }) => certificateDer));
const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each.close();
});

/** Two CAs with a root each; the first one's bundle holds both. */
async function twoCas() {
  const clock = new TestClock();
  const [old, next] = await testRoots();
  const first = new ScriptedCa(old, clock, 24 * HOUR, 'istiod');
  const second = new ScriptedCa(next, clock, 24 * HOUR, 'builtin');
  first.trust.set(bundleOf(old, next));
  const counts: unknown[] = [];
  const metrics: Metrics = { record: (name, labels) => counts.push([name, labels]) };
  const deps = testDeps({ clock, metrics, random: () => 0.5 });
  const ca = createFailover([first, second], {}, deps);
  open.push(ca);
  const engine = await instantEngine();
  const sign = async (signal = new AbortController().signal) => {
    const key = await engine.generateKeyPair('ecdsa-p256');
    return ca.sign({ id, csrDer: await engine.createCsr(key, id), ttlSeconds: 3_600 }, signal);
  };
  return { clock, first, second, ca, sign, deps, counts, engine };
}

const member = (ca: Failover, name: string) => ca.describe().find((each) => each.name === name);

describe('several CAs in order', () => {
  test('are one whose name lists them; while the first one works no other is asked', async () => {
    const { first, second, ca, sign } = await twoCas();
    expect(ca.name).toBe('istiod,builtin');
    expect((await sign()).source).toBe('istiod');
    expect([first.attempts.length, second.attempts.length]).toEqual([1, 0]);
    expect(ca.describe().map(({ active }) => active)).toEqual([true, false]);
  });

  test('go on to the next in the same attempt, tell which one signed, and count each', async () => {
    const { first, ca, sign, deps, counts } = await twoCas();
    first.failWith('ERR_CA_UNAVAILABLE');
    expect((await sign()).source).toBe('builtin');
    expect(deps.events).toContainEqual({
      level: 'warn',
      event: 'failed over to another CA',
      facts: { ca: 'builtin', before: 'istiod', cause: expect.any(AgentError) },
    });
    expect(counts).toEqual([
      ['ca_requests_total', { ca: 'istiod', outcome: 'ERR_CA_UNAVAILABLE' }],
      ['ca_requests_total', { ca: 'builtin', outcome: 'ok' }],
    ]);
    expect(member(ca, 'istiod')).toMatchObject({
      failed: 1,
      lastError: { code: 'ERR_CA_UNAVAILABLE' },
      active: false,
    });
  });

  test('ask the next after ten seconds, while the first one is still waited for: the first good answer counts', async () => {
    const { clock, first, second, ca, sign } = await twoCas();
    first.hang(true);
    const reply = sign();
    await clock.advanceBy(9_999);
    expect(second.attempts).toEqual([]);
    await clock.advanceBy(1);
    expect((await reply).source).toBe('builtin');
    expect(member(ca, 'istiod')).toMatchObject({
      failed: 1,
      lastError: {
        code: 'ERR_TIMEOUT',
        message: 'sign at istiod: no answer within 10 s, another CA answered first',
      },
    });
    await settle();
    expect(first.inFlight).toBe(0);
  });

  test('take the answer of a slow first one where the next has none, and blame nobody who was hardly asked', async () => {
    const { clock, first, second, ca, sign } = await twoCas();
    first.behave(async (request) => {
      await clock.sleepUntil(clock.now() + 12 * SECOND);
      return first.issue(request);
    });
    second.hang();
    const reply = sign();
    await clock.advanceBy(12 * SECOND);
    expect((await reply).source).toBe('istiod');
    expect([first.attempts.length, second.attempts.length]).toEqual([1, 1]);
    await settle();
    expect(second.inFlight).toBe(0);
    expect(member(ca, 'builtin')).toMatchObject({ breaker: 'closed', failed: 0 });
  });

  test('go on where the second fails while the first is slow, and fail once all have', async () => {
    const { clock, first, second, sign } = await twoCas();
    first.behave(async () => {
      await clock.sleepUntil(clock.now() + 12 * SECOND);
      throw new AgentError('ERR_CA_UNAVAILABLE', 'sign: late', { retry: 'soon' });
    });
    second.failWith('ERR_CA_REJECTED', { retry: 'slow' });
    const reply = sign().catch((caught: AgentError) => caught);
    await clock.advanceBy(12 * SECOND);
    expect(await reply).toMatchObject({
      message: 'sign: no CA could: sign: late; sign: scripted ERR_CA_REJECTED',
    });
  });

  test('that never answer are charged with it when the time of the attempt is over', async () => {
    const { clock, first, second, ca, sign } = await twoCas();
    first.hang(true);
    second.hang(true);
    const reply = withDeadline(clock, 20 * SECOND, 'sign', undefined, sign).catch(
      (caught: AgentError) => caught,
    );
    await clock.advanceBy(20 * SECOND);
    expect(await reply).toMatchObject({ code: 'ERR_TIMEOUT' });
    expect([member(ca, 'istiod')?.failed, member(ca, 'builtin')?.failed]).toEqual([1, 1]);
  });

  test('field: share the time of an attempt that has less than their head starts, so that the last one is asked too', async () => {
    const { clock, first, second, ca, engine } = await twoCas();
    first.hang();
    const csrDer = await engine.createCsr(await engine.generateKeyPair('ecdsa-p256'), id);
    const signed = ca.sign(
      { id, csrDer, ttlSeconds: 20, answerBy: clock.now() + 2_500 },
      new AbortController().signal,
    );
    await clock.advanceBy(1_249);
    expect(second.attempts).toHaveLength(0);
    await clock.advanceBy(1);
    expect((await signed).source).toBe('builtin');
  });

  test('field: are not charged with our want of a token, and a changed credential wipes the slate of the CA that it is for', async () => {
    const { first, ca, sign } = await twoCas();
    first.failWith('ERR_TOKEN');
    for (let call = 0; call < 4; call += 1) await sign();
    expect(member(ca, 'istiod')).toMatchObject({ breaker: 'closed', failed: 4 });
    first.failWith('ERR_CA_REJECTED', { retry: 'slow' });
    for (let call = 0; call < 3; call += 1) await sign();
    expect(member(ca, 'istiod')).toMatchObject({ breaker: 'open' });
    first.work();
    first.tell('credential');
    expect((await sign()).source).toBe('istiod');
  });

  test('never ask one whose root peers do not trust, and say so', async () => {
    const { first, second, ca, sign } = await twoCas();
    first.trust.set(first.signer.bundle);
    first.failWith('ERR_CA_UNAVAILABLE');
    await expect(sign()).rejects.toMatchObject({ code: 'ERR_CA_UNAVAILABLE', retry: 'soon' });
    expect(second.attempts).toEqual([]);
    expect(member(ca, 'builtin')?.excluded).toBe('none of its roots is in the served bundle');
    first.trust.set(undefined);
    expect(member(ca, 'builtin')?.excluded).toBe('no trust bundle of istiod yet');
    await expect(sign()).rejects.toMatchObject({ code: 'ERR_CA_UNAVAILABLE' });
    expect(second.attempts).toEqual([]);
  });

  test('do not take a certificate that peers would refuse for an answer', async () => {
    const { first, second, sign } = await twoCas();
    const stranger = await makeTestCa({ name: 'stranger' });
    first.behave((request) => ({
      ...first.issue(request),
      certificatesDer: new ScriptedCa(stranger, new TestClock()).issue(request).certificatesDer,
    }));
    expect((await sign()).source).toBe('builtin');
    expect(second.issued).toBe(1);
  });

  test('serve the first one’s bundle and no other', async () => {
    const { first, ca } = await twoCas();
    expect(ca.trust.value).toBe(first.trust.value);
  });

  test('that all fail say what each said; the wait is for the most hopeful', async () => {
    const { first, second, sign } = await twoCas();
    first.failWith('ERR_CA_REJECTED', { retry: 'slow', hint: 'one', retryAfterMs: 9_000 });
    second.failWith('ERR_CA_UNAVAILABLE', { retry: 'soon', hint: 'two', retryAfterMs: 4_000 });
    await expect(sign()).rejects.toMatchObject({
      code: 'ERR_CA_UNAVAILABLE',
      message:
        'sign: no CA could: sign: scripted ERR_CA_REJECTED; sign: scripted ERR_CA_UNAVAILABLE',
      retry: 'soon',
      retryAfterMs: 4_000,
      hint: 'one; two',
    });
  });

  test('stop asking one after three failures, probe it once in a while, and trust it again after two good probes', async () => {
    const { clock, first, ca, sign } = await twoCas();
    first.failWith('ERR_CA_UNAVAILABLE');
    for (let times = 0; times < 3; times += 1) await sign();
    expect(member(ca, 'istiod')).toMatchObject({
      breaker: 'open',
      probeAt: clock.now() + 30 * SECOND,
    });
    await sign();
    expect(first.attempts.length).toBe(3);
    await clock.advanceBy(30 * SECOND);
    await sign();
    expect([first.attempts.length, member(ca, 'istiod')?.breaker]).toEqual([4, 'open']);
    first.work();
    await clock.advanceBy(59 * SECOND);
    expect((await sign()).source).toBe('builtin');
    await clock.advanceBy(SECOND);
    expect([(await sign()).source, member(ca, 'istiod')?.breaker]).toEqual(['istiod', 'half-open']);
    expect([(await sign()).source, member(ca, 'istiod')?.breaker]).toEqual(['istiod', 'closed']);
  });

  test('ask the first one all the same when every breaker is open', async () => {
    const { first, second, sign } = await twoCas();
    first.failWith('ERR_CA_UNAVAILABLE');
    second.failWith('ERR_CA_UNAVAILABLE');
    for (let times = 0; times < 5; times += 1) await sign().catch(() => undefined);
    expect([first.attempts.length, second.attempts.length]).toEqual([5, 3]);
    first.work();
    expect((await sign()).source).toBe('istiod');
  });

  test('do not blame one for a caller who leaves', async () => {
    const { first, ca, sign } = await twoCas();
    first.hang();
    const leaves = new AbortController();
    const reply = sign(leaves.signal);
    await settle();
    leaves.abort();
    await expect(reply).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(member(ca, 'istiod')).toMatchObject({ breaker: 'closed', failed: 0 });
  });

  test('pass on what their members tell, but a new signer only of the one that signed', async () => {
    const { first, second, ca, sign } = await twoCas();
    const told: string[] = [];
    const stop = ca.onChange((what) => told.push(what));
    await sign();
    second.tell('signer');
    second.tell('credential');
    first.tell('signer');
    stop();
    first.tell('signer');
    expect(told).toEqual(['credential', 'signer']);
  });

  test('close together', async () => {
    const { first, second, ca, sign } = await twoCas();
    await ca.close();
    expect([first.closed, second.closed]).toEqual([true, true]);
    await expect(sign()).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });
});

describe('a keeper over several CAs', () => {
  test('is never without a certificate, returns to the first CA minutes after it is back, and does not run to and fro', async () => {
    const { clock, first, second, ca, deps, engine } = await twoCas();
    const keeper = createKeeper(
      {
        ca,
        id,
        engine,
        keyAlgorithm: 'ecdsa-p256',
        ttlMs: 24 * HOUR,
        rotation: { ratio: 0.5, jitterRatio: 0 },
        warmStart: undefined,
      },
      deps,
    );
    open.push(keeper);
    const source = () =>
      keeper.state.value.kind === 'current'
        ? keeper.state.value.svid.source
        : keeper.state.value.kind;
    await settle();
    expect(source()).toBe('istiod');
    first.failWith('ERR_CA_UNAVAILABLE');
    await clock.advanceBy(12 * HOUR);
    expect(source()).toBe('builtin');
    // Down for an hour: asked for with every renewal of the fallback's, after 5, 15, 35 and 75 minutes.
    const issued = second.issued;
    await clock.advanceBy(HOUR);
    expect([source(), second.issued - issued]).toEqual(['builtin', 3]);
    first.work();
    await clock.advanceBy(20 * MINUTE);
    expect(source()).toBe('istiod');
    expect(
      deps.events.filter(({ event }) => event === 'failed back to an earlier CA'),
    ).toHaveLength(1);
    const asked = first.attempts.length;
    await clock.advanceBy(11 * HOUR);
    expect(first.attempts.length).toBe(asked);
  });
});
