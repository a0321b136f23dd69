import { expect, test } from '@jest/globals';
import { LiveCertificates } from '../../../../agent/authority/server/live-certificates';
import type { IssuedEntry, IssuedReading } from '../../../../agent/authority/store/store';
import { issuedEntry } from '../../../support/ca-store';
import { HOUR_MS, TEST_ID } from '../../../support/certs';
import { TestClock } from '../../../support/test-clock';

const FULL = { code: 'ERR_CA_REJECTED', status: 'RESOURCE_EXHAUSTED' };

/** A register of many processes, each of which has a bound of its own. */
function world(max: number, processes = 1) {
  const clock = new TestClock();
  const entries: IssuedEntry[] = [];
  const revoked = new Set<string>();
  const reads: number[] = [];
  const store = {
    issuedSince: async (
      _query: unknown,
      _now: number,
      since?: ReadonlyMap<string, number>,
    ): Promise<IssuedReading> => {
      const from = since?.get('register') ?? 0;
      reads.push(from);
      return {
        entries: entries.slice(from).filter(({ notAfterAt }) => notAfterAt > clock.now()),
        isWhole: from === 0,
        end: new Map([['register', entries.length]]),
      };
    },
  };
  const all = Array.from(
    { length: processes },
    () => new LiveCertificates(max, store, (serial) => revoked.has(serial), { clock }),
  );
  const sign = async (by = 0, lifeMs = HOUR_MS) => {
    const settled = await all[by]!.admit(TEST_ID);
    entries.push(
      issuedEntry({
        serial: entries.length.toString(16).padStart(4, '0'),
        notAfterAt: clock.now() + lifeMs,
      }),
    );
    settled();
  };
  return { clock, entries, revoked, sign, bounds: all, reads };
}

test('as many certificates as the bound are signed for one identity; the refusal names bound and flag', async () => {
  const at = world(3);
  for (let count = 0; count < 3; count += 1) await at.sign();
  await expect(at.sign()).rejects.toMatchObject({
    ...FULL,
    message:
      'the identity has 3 live certificates, as many as --max-live-certificates-per-identity allows',
  });
  const before = at.reads.length;
  for (let count = 0; count < 100; count += 1) await expect(at.sign()).rejects.toMatchObject(FULL);
  expect(at.reads).toHaveLength(before);
});

test.each<[string, (at: ReturnType<typeof world>) => unknown]>([
  ['expires', ({ clock }) => clock.advanceBy(HOUR_MS)],
  ['is revoked', ({ revoked }) => revoked.add('0001')],
])('one that %s makes room', async (_, change) => {
  const at = world(3);
  for (let count = 0; count < 3; count += 1) await at.sign();
  await expect(at.sign()).rejects.toMatchObject(FULL);
  await change(at);
  await at.clock.advanceBy(5_000);
  await at.sign();
});

test('calls that come together get no more than the bound', async () => {
  const at = world(3);
  const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => at.sign()));
  expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(3);
});

test('one that is admitted and not yet in the register counts', async () => {
  const at = world(1);
  await at.bounds[0]!.admit(TEST_ID);
  await at.clock.advanceBy(60_000);
  await expect(at.sign()).rejects.toMatchObject(FULL);
});

test('many processes together go beyond the bound by no more than it, and read the register seldom', async () => {
  const at = world(1_000, 64);
  let signed = 0;
  for (let turn = 0; turn < 4_000; turn += 1)
    await at
      .sign(turn % 64)
      .then(() => (signed += 1))
      .catch(() => undefined);
  expect([signed >= 1_000, signed <= 2_000]).toEqual([true, true]);
  expect(at.reads.length).toBeLessThan(signed * 2);
});

test('the register is read from where the last look ended, and whole before a refusal', async () => {
  const at = world(1_000);
  for (let count = 0; count < 1_000; count += 1) await at.sign();
  const [first, ...later] = at.reads;
  expect(first).toBe(0);
  expect(later.filter((from) => from === 0)).toEqual([]);
  await at.clock.advanceBy(HOUR_MS);
  // All have ended: what was counted earlier refuses nobody.
  await at.sign();
  expect(at.reads.at(-1)).toBe(0);
});
