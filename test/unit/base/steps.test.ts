import { expect, test } from '@jest/globals';
import { inTurns, joinSteps, type Steps } from '../../../agent/base/steps';
import { longestTurn } from '../../support/longest-turn';

const STEP_MS = 1;

function* work(ms: number): Steps<number> {
  for (let done = 0; done < ms; done += STEP_MS) {
    const until = performance.now() + STEP_MS;
    while (performance.now() < until);
    yield;
  }
  return ms;
}

test('all work in turns has one share of a turn together, however much of it there is', async () => {
  const { longestTurnMs } = await longestTurn(async () => {
    const works = Array.from({ length: 40 }, () => inTurns(work(15)));
    expect(await Promise.all(works)).toEqual(works.map(() => 15));
  });
  // 5 ms for each would be 200.
  expect(longestTurnMs).toBeLessThan(50);
});

test('what a step throws is told to who waits for the work', async () => {
  function* failing(): Steps<void> {
    yield;
    throw new Error('no');
  }
  await expect(inTurns(failing())).rejects.toThrow('no');
});

test.each([
  ['nothing', []],
  ['small parts', [3, 0, 5]],
  ['parts that are longer than a step', [1, 2_500_000, 1_048_576, 7]],
])('%s put together in steps are what they are together', async (_, lengths) => {
  const parts = lengths.map((length, at) => Buffer.alloc(length, at + 1));
  expect((await inTurns(joinSteps(parts))).equals(Buffer.concat(parts))).toBe(true);
});
