import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { backoffMs, DEFAULT_BACKOFF, FailureRun } from '../../../agent/base/backoff';
import type { ErrorCode } from '../../../agent/base/errors';

test('back-off doubles from one second to 45 seconds', () => {
  const plain = [1, 2, 3, 4, 5, 6, 7, 8, 1_000].map((failures) =>
    backoffMs(failures, DEFAULT_BACKOFF, () => 0.5),
  );
  expect(plain).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 45_000, 45_000, 45_000]);
});

test('back-off stays within its jitter, whatever the number of failures', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: -5, max: 2 ** 40 }),
      fc.double({ min: 0, max: 0.999999, noNaN: true }),
      (failures, random) => {
        const plain = backoffMs(failures, DEFAULT_BACKOFF, () => 0.5);
        const ms = backoffMs(failures, DEFAULT_BACKOFF, () => random);
        expect(ms).toBeGreaterThanOrEqual(plain * 0.8);
        expect(ms).toBeLessThanOrEqual(plain * 1.2);
      },
    ),
    { numRuns: 10_000 },
  );
});

test.each<[string, string, number[]]>([
  ['of one kind are counted', 'TTTT', [1, 2, 3, 4]],
  ['of another kind begin anew', 'TTTTTUUU', [1, 2, 3, 4, 5, 1, 2, 3]],
  ['that take turns wait longer all the same', 'TUTUTU', [1, 1, 2, 3, 4, 5]],
  ['after an end begin anew', 'TTT.TTU', [1, 2, 3, 1, 2, 1]],
  ['whose wait was cut short count for none', 'TT-T-TTU-TU', [1, 2, 2, 2, 3, 1, 1, 2]],
])('failures %s', (_, run, want) => {
  const codes: Record<string, ErrorCode> = { T: 'ERR_TOKEN', U: 'ERR_CA_UNAVAILABLE' };
  const failures = new FailureRun();
  const counts: number[] = [];
  for (const each of run) {
    if (each === '.') failures.end();
    else if (each === '-') failures.cutShort();
    else counts.push(failures.failed({ code: codes[each]! }));
  }
  expect(counts).toEqual(want);
});
