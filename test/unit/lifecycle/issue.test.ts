import { expect, test } from '@jest/globals';
import type { KeyPair } from '../../../agent/identity/keys';
import { parseSpiffeId } from '../../../agent/identity/spiffe-id';
import { Issuer } from '../../../agent/lifecycle/issue';
import type { AttemptTimeout } from '../../../agent/lifecycle/rotation';
import type { IssuedChain, SignRequest } from '../../../ca-client/ca-client';
import { TEST_ID, TEST_NOW } from '../../support/certs';
import { instantEngine, ScriptedCa, testRoots } from '../../support/scripted-ca';
import { settle, TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';

const ALLOWED: AttemptTimeout = { ms: 10_000, callMs: 10_000, limit: 'setting', turnMs: undefined };

/** An issuer on a clock that stands, its CA, and what it keeps and measures. */
async function start(kept?: KeyPair) {
  const clock = new TestClock(TEST_NOW);
  const ca = new ScriptedCa((await testRoots())[0], clock);
  const keys = { loads: 0, saved: [] as KeyPair[] };
  const durations: unknown[] = [];
  const issuer = new Issuer(
    {
      ca,
      id: parseSpiffeId(TEST_ID),
      engine: await instantEngine(),
      keyAlgorithm: 'ecdsa-p256',
      ttlMs: 86_400_000,
      keptKey: {
        load: async () => {
          keys.loads += 1;
          return kept;
        },
        save: async (key) => void keys.saved.push(key),
      },
    },
    testDeps({
      clock,
      metrics: {
        record: (name: string, facts: unknown, value: number) =>
          void durations.push({ name, facts, value }),
      } as never,
    }),
  );
  const issue = (allowed: Partial<AttemptTimeout> = {}) =>
    issuer.issue(
      () => ({ ...ALLOWED, ...allowed }),
      () => undefined,
      new AbortController().signal,
    );
  return { ca, clock, durations, issue, keys };
}

/** Shows a proof that is good for the key of the request alone, and issues. */
const proving =
  (ca: ScriptedCa) =>
  async (request: SignRequest): Promise<IssuedChain> => {
    await request.keepKey?.();
    return ca.issue(request);
  };

test('a call is measured in seconds, by how it ended', async () => {
  const { ca, clock, durations, issue } = await start();
  ca.behave(async (request) => {
    await clock.sleepUntil(clock.now() + 3_000);
    return ca.issue(request);
  });
  const issued = issue();
  await settle();
  await clock.advanceBy(3_000);
  await issued;
  expect(durations).toEqual([
    {
      name: 'ca_request_duration_seconds',
      facts: { ca: 'scripted', outcome: 'ok' },
      value: 3,
    },
  ]);
});

test.each([
  ['setting', /raise --ca-timeout/],
  ['remaining life', /ask for a longer life \(--ttl\)/],
] as const)(
  'where %s is the limit of an attempt, its error says what to do about that',
  async (limit, hint) => {
    const { ca, clock, issue } = await start();
    ca.hang();
    const failed = expect(issue({ limit })).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      hint: expect.stringMatching(hint),
    });
    await settle();
    await clock.advanceBy(10_000);
    await failed;
  },
);

test('a key of before the restart is asked for once, and not kept again', async () => {
  const engine = await instantEngine();
  const kept = await engine.generateKeyPair('ecdsa-p256');
  const { ca, issue, keys } = await start(kept);
  ca.behave(proving(ca));
  expect((await issue()).key).toBe(kept);
  expect(keys).toEqual({ loads: 1, saved: [] });
  const next = await issue();
  expect(next.key).not.toBe(kept);
  expect(keys).toEqual({ loads: 1, saved: [next.key] });
});

test('a key whose proof was shown is kept once, before the proof goes out, and survives a refusal', async () => {
  const { ca, issue, keys } = await start();
  let isRefused = true;
  ca.behave(async (request) => {
    await request.keepKey?.();
    await request.keepKey?.();
    expect(keys.saved).toHaveLength(1);
    if (isRefused) throw new Error('refused');
    return ca.issue(request);
  });
  await expect(issue()).rejects.toThrow('refused');
  isRefused = false;
  expect((await issue()).key).toBe(keys.saved[0]);
});

test('a key that no proof was shown with is given up once the CA has said no', async () => {
  const { ca, issue } = await start();
  const asked: Uint8Array[] = [];
  ca.behave((request) => {
    asked.push(request.csrDer);
    if (asked.length === 1) throw new Error('refused');
    return ca.issue(request);
  });
  await expect(issue()).rejects.toThrow('refused');
  await issue();
  expect(Buffer.compare(asked[0]!, asked[1]!)).not.toBe(0);
});

test('a call that was left open is waited for by the next attempt; once it is answered the next asks anew', async () => {
  const { ca, clock, issue } = await start();
  let answer = () => undefined as unknown;
  ca.behave((request) => new Promise((resolve) => (answer = () => resolve(ca.issue(request)))));
  const late = expect(issue({ callMs: 60_000 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
  await settle();
  await clock.advanceBy(10_000);
  await late;
  const second = issue({ callMs: 60_000 });
  await settle();
  answer();
  const { serial } = await second;
  expect(ca.attempts).toHaveLength(1);
  ca.work();
  expect((await issue({ callMs: 60_000 })).serial).not.toBe(serial);
  expect(ca.attempts).toHaveLength(2);
});

test('a call that was left open and failed meanwhile is none: the next attempt asks anew', async () => {
  const { ca, clock, issue } = await start();
  let fail = (_: Error) => undefined as unknown;
  ca.behave(() => new Promise((_, reject) => (fail = reject)));
  const late = expect(issue({ callMs: 60_000 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
  await settle();
  await clock.advanceBy(10_000);
  await late;
  fail(new Error('gone'));
  await settle();
  ca.work();
  await issue({ callMs: 60_000 });
  expect(ca.attempts).toHaveLength(2);
});
