import { describe, expect, test } from '@jest/globals';
import { formatDuration, parseDuration } from '../../../agent/base/duration';

describe('durations', () => {
  test.each([
    ['24h', 86_400_000],
    ['1h30m', 5_400_000],
    ['250ms', 250],
    ['1.5h', 5_400_000],
    ['7d', 604_800_000],
    ['0', 0],
  ])('parseDuration reads %s', (text, want) => expect(parseDuration(text, '--ttl')).toBe(want));

  test.each(['', '10', 'h', '-1h', '1 h', '1h ', '1y', '1e9h', '9'.repeat(40), '1000000d'])(
    'parseDuration refuses %j',
    (text) =>
      expect(() => parseDuration(text, '--ttl')).toThrow(
        expect.objectContaining({ code: 'ERR_CONFIG', field: '--ttl' }),
      ),
  );

  test.each([
    [86_400_000, '24h'],
    [5_400_000, '1h30m'],
    [250, '250ms'],
    [20_000, '20s'],
    [1_500, '1.5s'],
    [-90_000, '-1m30s'],
  ])('formatDuration writes %d as %s', (ms, want) => expect(formatDuration(ms)).toBe(want));
});
