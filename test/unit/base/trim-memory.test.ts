import { describe, expect, test } from '@jest/globals';
import { trimMemory } from '../../../agent/base/trim-memory';
import { TestClock } from '../../support/test-clock';

describe('trimMemory', () => {
  test('gives back what nobody holds any more, once things have settled', async () => {
    const clock = new TestClock();
    const trimmed = trimMemory(clock, new AbortController().signal);
    let garbage: unknown[] | undefined = Array.from({ length: 300_000 }, (_, index) => ({
      index,
      text: `${index}`,
    }));
    await clock.advanceBy(4_900);
    const before = process.memoryUsage().heapUsed;
    expect(garbage).toHaveLength(300_000);
    garbage = undefined;
    await clock.advanceBy(200);
    await trimmed;
    expect(before - process.memoryUsage().heapUsed).toBeGreaterThan(10_000_000);
  });

  test('is over at once when the agent ends before', async () => {
    const ending = new AbortController();
    const trimmed = trimMemory(new TestClock(), ending.signal);
    ending.abort();
    await expect(trimmed).resolves.toBeUndefined();
  });
});
