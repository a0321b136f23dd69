import { expect, test } from '@jest/globals';
import { Verdicts } from '../../../../agent/authority/server/verdicts';
import { AgentError } from '../../../../agent/base/errors';
import { TestClock } from '../../../support/test-clock';

const open = () => {
  const clock = new TestClock(0);
  const verdicts = new Verdicts<string>(
    { yesUntilAt: (_, now) => now + 10_000, noMs: 10_000 },
    clock,
  );
  let work = 0;
  const of = (key: string, error?: AgentError) =>
    verdicts
      .of(key, async () => {
        work += 1;
        if (error) throw error;
        return 'yes';
      })
      .catch((caught: AgentError) => caught.code);
  return { of, clock, work: () => work };
};

const NO = new AgentError('ERR_TOKEN', 'no');

test('a flood of refusals does not push out what was accepted, and keeps its bound', async () => {
  const { of, work } = open();
  await of('good');
  for (let each = 0; each < 5_000; each += 1) await of(`bad ${each}`, NO);
  expect(work()).toBe(5_001);
  await of('good');
  await of('bad 4999', NO);
  expect(work()).toBe(5_001);
  await of('bad 0', NO);
  expect(work()).toBe(5_002);
});

test.each([
  ['ERR_TOKEN', 1],
  ['ERR_CA_UNAVAILABLE', 2],
  ['ERR_CA_REJECTED', 2],
] as const)('of two calls that fail with %s, verify %i times', async (code, times) => {
  const { of, work } = open();
  const error = new AgentError(code, 'no');
  expect([await of('a', error), await of('a', error)]).toEqual([code, code]);
  expect(work()).toBe(times);
});

test('calls that come at once share one verification', async () => {
  const { of, work } = open();
  await Promise.all(Array.from({ length: 10 }, () => of('a')));
  expect(work()).toBe(1);
});
