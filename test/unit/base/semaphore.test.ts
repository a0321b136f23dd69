import { expect, test } from '@jest/globals';
import { Semaphore } from '../../../agent/base/semaphore';
import { TestClock } from '../../support/test-clock';

const never = new AbortController().signal;

/** A semaphore of two slots, and who has come in so far. */
function world(holdMs = 500) {
  const clock = new TestClock();
  const semaphore = new Semaphore({ slots: 2, holdMs }, clock);
  const inside: string[] = [];
  const enter = (name: string, signal = never) =>
    semaphore.enter(signal).then((leave) => {
      inside.push(name);
      return leave;
    });
  return { clock, inside, enter };
}

const settled = () => new Promise((done) => setImmediate(done));

test('two are let in at once, and the others in the order in which they came', async () => {
  const { inside, enter } = world();
  const [a] = ['a', 'b', 'c', 'd'].map((name) => enter(name));
  await settled();
  expect(inside).toEqual(['a', 'b']);
  (await a!)();
  await settled();
  expect(inside).toEqual(['a', 'b', 'c']);
});

test('who leaves twice makes room once', async () => {
  const { inside, enter } = world();
  const [a] = ['a', 'b', 'c', 'd'].map((name) => enter(name));
  const leave = await a!;
  leave();
  leave();
  await settled();
  expect(inside).toEqual(['a', 'b', 'c']);
});

test('who stays inside for long takes no slot any more', async () => {
  const { clock, inside, enter } = world();
  for (const name of ['a', 'b', 'c', 'd', 'e']) void enter(name);
  await settled();
  await clock.advanceTo(clock.now() + 500);
  expect(inside).toEqual(['a', 'b', 'c', 'd']);
});

test('who gives up in the line is forgotten, and never takes a slot', async () => {
  const { inside, enter } = world();
  const a = enter('a');
  void enter('b');
  const gone = new AbortController();
  const left = enter('gone', gone.signal);
  void enter('c');
  gone.abort();
  await expect(left).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  await expect(enter('late', gone.signal)).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  (await a)();
  await settled();
  expect(inside).toEqual(['a', 'b', 'c']);
});
