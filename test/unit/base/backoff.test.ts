import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { backoffMs, DEFAULT_BACKOFF } from '../../../agent/base/backoff';

test('back-off doubles from one second to 45 seconds', () => {
  const plain = [1, 2, 3, 4, 5, 6, 7, 8, 1_000].map((failures) => backoffMs(failures, DEFAULT_BACKOFF, () => 0.5));
  expect(plain).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 45_000, 45_000, 45_000]);
});

test('back-off stays within its jitter, whatever the number of failures', () => {
  fc.assert(
    fc.property(fc.integer({ min: -5, max: 2 ** 40 }), fc.double({ min: 0, max: 0.999999, noNaN: true }), (failures, random) => {
      const plain = backoffMs(failures, DEFAULT_BACKOFF, () => 0.5);
      const ms = backoffMs(failures, DEFAULT_BACKOFF, () => random);
      expect(ms).toBeGreaterThanOrEqual(plain * 0.8);
      expect(ms).toBeLessThanOrEqual(plain * 1.2);
    }),
    { numRuns: 10_000 },
  );
});
