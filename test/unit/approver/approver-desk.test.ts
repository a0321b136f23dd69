import { afterEach, expect, test } from '@jest/globals';
import { ApproverDesk } from '../../../agent/approver/approver-desk';
import { AgentError } from '../../../agent/base/errors';
import { TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';
import { until } from '../../support/until';

const stop = new Set<AbortController>();
afterEach(() => {
  for (const each of stop) each.abort();
});

/**
 * A desk on which `stuck-...` fails for good and `once-...` fails once; the names in the order of their attempts. While `hold` is set, what
 * failed before hangs.
 */
function desk() {
  const attempts: string[] = [];
  const ending = new AbortController();
  stop.add(ending);
  const gate = { hold: false, open: () => {} };
  const opened = new Promise<void>((done) => {
    gate.open = done;
  });
  ending.signal.addEventListener('abort', gate.open);
  const decide = async (name: string) => {
    attempts.push(name);
    const isFirst = attempts.filter((each) => each === name).length === 1;
    if (!isFirst && gate.hold) await opened;
    if (name.startsWith('stuck') || (name.startsWith('once') && isFirst))
      throw new AgentError('ERR_CA_UNAVAILABLE', 'no', { retry: 'soon' });
  };
  const made = new ApproverDesk(decide, testDeps({ clock: new TestClock() }), ending.signal);
  const put = (...names: string[]) => {
    for (const name of names) made.put({ name, uid: name });
  };
  return { desk: made, put, attempts, gate, ending };
}

const numbered = (word: string, count: number) =>
  Array.from({ length: count }, (_, index) => `${word}-${index}`);
const settled = () => new Promise((done) => setImmediate(done));

test('field E3: a hundred requests that fail for good leave places for others at each moment', async () => {
  const world = desk();
  world.put(...numbered('stuck', 100));
  await until('a failure of each', async () => world.attempts.length === 100);
  world.put('plain');
  await settled();
  expect(world.attempts.at(-1)).toBe('plain');
  expect(world.desk.size).toBe(100);
});

test('field E3: what failed before holds no more than three of the places, even where it hangs', async () => {
  const { desk: made, put, attempts, gate } = desk();
  put(...numbered('stuck', 20));
  await until('a failure of each', async () => attempts.length === 20);
  gate.hold = true;
  made.listed(new Set(numbered('stuck', 20)));
  await until('three that hang', async () => attempts.length === 23);
  put(...numbered('plain', 20));
  await settled();
  expect(attempts.slice(23)).toEqual(numbered('plain', 20));
});

test('a complete list ends the waits, and what failed least often comes first', async () => {
  const { desk: made, put, attempts, gate } = desk();
  const stuck = numbered('stuck', 20);
  put(...stuck);
  await until('a failure of each', async () => attempts.length === 20);
  made.listed(new Set(stuck));
  await until('a second of each', async () => attempts.length === 40);
  put('once-0');
  await until('its failure', async () => attempts.length === 41);
  gate.hold = true;
  made.listed(new Set([...stuck, 'once-0']));
  await until('three that hang', async () => attempts.length === 44);
  await settled();
  gate.open();
  await until('third attempts', async () => attempts.length === 62);
  expect(attempts.slice(41, 45)).toContain('once-0');
  expect(made.stuck()).toHaveLength(20);
  expect(made.size).toBe(20);
});

test('what a complete list does not name is forgotten, as is what is told to be gone', async () => {
  const world = desk();
  world.put('stuck-0', 'stuck-1', 'stuck-2');
  await until('a failure of each', async () => world.attempts.length === 3);
  world.desk.forget('stuck-0');
  world.desk.listed(new Set(['stuck-2']));
  await until('a second attempt', async () => world.attempts.length === 4);
  expect(world.attempts.at(-1)).toBe('stuck-2');
  expect(world.desk.size).toBe(1);
});

test('ends when the signal fires, whatever waits', async () => {
  const world = desk();
  world.put('stuck-0', 'once-0');
  await until('both tried', async () => world.attempts.length === 2);
  world.gate.hold = true;
  world.desk.listed(new Set(['stuck-0', 'once-0']));
  await until('both hanging', async () => world.attempts.length === 4);
  // Its next attempt waits for a clock that stands still.
  world.put('stuck-1');
  await until('its failure', async () => world.attempts.length === 5);
  await settled();
  world.ending.abort();
  await world.desk.closed();
});
