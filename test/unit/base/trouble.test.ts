import { expect, test } from '@jest/globals';
import { AgentError } from '../../../agent/base/errors';
import { Trouble } from '../../../agent/base/trouble';
import { settle, TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';

/** Trouble whose attempts fail while `state.bad`, with what was said of it. */
function trouble() {
  const clock = new TestClock();
  const state = { bad: true, attempts: 0 };
  const said: string[] = [];
  const attempt = async () => {
    state.attempts += 1;
    if (state.bad) throw new AgentError('ERR_OUTPUT', `attempt ${state.attempts}`);
  };
  const options = {
    attempt,
    began: ({ message }: AgentError) => said.push(`began ${message}`),
    passed: () => said.push('passed'),
  };
  return { clock, state, said, trouble: new Trouble(options, testDeps({ clock })) };
}

test('field B2 trouble is looked at again by itself until it has passed, and not afterwards', async () => {
  const { clock, state, said, trouble: it } = trouble();
  await clock.advanceBy(3_600_000);
  expect([state.attempts, it.problem()]).toEqual([0, undefined]);
  it.failed(new AgentError('ERR_OUTPUT', 'the work'));
  await clock.advanceBy(60_000);
  expect(state.attempts).toBeGreaterThan(5);
  expect(it.problem()).toMatchObject({ message: `attempt ${state.attempts}` });
  state.bad = false;
  await clock.advanceBy(12_000);
  expect(it.problem()).toBeUndefined();
  const { attempts } = state;
  await clock.advanceBy(3_600_000);
  expect(state.attempts).toBe(attempts);
  it.failed(new AgentError('ERR_OUTPUT', 'again'));
  await clock.advanceBy(2_000);
  expect(it.problem()).toBeUndefined();
  expect(said).toEqual(['began the work', 'passed', 'began again', 'passed']);
  await it.close();
});

test('work that succeeds meanwhile is a reason to look at once, and no proof', async () => {
  const { state, trouble: it } = trouble();
  it.worked();
  it.failed(new AgentError('ERR_OUTPUT', 'the work'));
  it.worked();
  await settle();
  expect([state.attempts, it.problem()?.message]).toEqual([1, 'attempt 1']);
  state.bad = false;
  it.worked();
  await settle();
  expect(it.problem()).toBeUndefined();
  await it.close();
});

test('an attempt that callers make is one for all of them, and ends with the trouble', async () => {
  const { state, trouble: it } = trouble();
  const outcomes = await Promise.allSettled([it.tryNow(), it.tryNow()]);
  expect([state.attempts, outcomes.map(({ status }) => status)]).toEqual([
    1,
    ['rejected', 'rejected'],
  ]);
  state.bad = false;
  await it.tryNow();
  expect(it.problem()).toBeUndefined();
  await it.close();
});
