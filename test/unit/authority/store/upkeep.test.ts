import { expect, test } from '@jest/globals';
import { keepTidy } from '../../../../agent/authority/store/upkeep';
import { HOUR_MS, TEST_NOW } from '../../../support/certs';
import { TestClock } from '../../../support/test-clock';
import { testDeps } from '../../../support/test-deps';

test('a store is tidied up a minute after the start and each hour, also after it could not be, until the end', async () => {
  const clock = new TestClock();
  const deps = testDeps({ clock });
  const sweeps: number[] = [];
  const upkeep = keepTidy(
    {
      sweep: async (now) => {
        sweeps.push(now);
        if (sweeps.length === 2) throw new Error('the disk is full');
      },
    },
    deps,
  );
  await clock.advanceBy(3 * HOUR_MS);
  expect(sweeps.map((at) => at - TEST_NOW)).toEqual([
    60_000,
    60_000 + HOUR_MS,
    60_000 + 2 * HOUR_MS,
  ]);
  expect(deps.events).toMatchObject([{ level: 'warn', event: 'cleanup of expired state failed' }]);
  await upkeep.close();
  await clock.advanceBy(3 * HOUR_MS);
  expect(sweeps).toHaveLength(3);
});
