import { expect, test } from '@jest/globals';
import { LiveCertificates } from '../../../../agent/authority/server/live-certificates';
import type { IssuedEntry } from '../../../../agent/authority/store/store';
import { issuedEntry } from '../../../support/ca-store';
import { HOUR_MS, TEST_ID } from '../../../support/certs';
import { TestClock } from '../../../support/test-clock';

const FULL = { code: 'ERR_CA_REJECTED', status: 'RESOURCE_EXHAUSTED' };

/** A register of many processes, each of which has a bound of its own. */
function world(max: number, processes = 1) {
  const clock = new TestClock();
  const entries: IssuedEntry[] = [];
  const revoked = new Set<string>();
  let reads = 0;
  const store = {
    issued: async () => {
      reads += 1;
      return entries.filter(({ notAfterAt }) => notAfterAt > clock.now());
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
  return { clock, entries, revoked, sign, bounds: all, reads: () => reads };
}

test('as many certificates as the bound are signed for one identity; the refusal names bound and flag', async () => {
  const at = world(3);
  for (let count = 0; count < 3; count += 1) await at.sign();
  await expect(at.sign()).rejects.toMatchObject({
    ...FULL,
    message:
      'the identity has 3 live certificates, as many as --max-live-certificates-per-identity allows',
  });
  const { reads } = at;
  const before = reads();
  for (let count = 0; count < 100; count += 1) await expect(at.sign()).rejects.toMatchObject(FULL);
  expect(reads()).toBe(before);
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
  expect(at.reads()).toBeLessThan(signed * 2);
});
