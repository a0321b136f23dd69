import { expect, test } from '@jest/globals';
import { OneATurn } from '../../../agent/base/one-a-turn';
import { cpuMs } from '../../support/load';

/** Work of so much time by both clocks: that of the wall, and of the processor, whose other threads count too. */
const busy = (ms: number) => {
  const [wall, cpu] = [performance.now() + ms, cpuMs() + ms];
  while (performance.now() < wall || cpuMs() < cpu);
};

test('steps come one in each turn of the loop, in their order, and what else waits comes in between', async () => {
  const turns = new OneATurn({ plainMs: 1_000, rests: 1 });
  const seen: string[] = [];
  for (const step of ['a', 'b', 'c']) turns.add(() => seen.push(step));
  await new Promise<void>((done) => {
    let left = 6;
    const turn = () => {
      seen.push('.');
      left -= 1;
      if (left === 0) done();
      else setImmediate(turn);
    };
    setImmediate(turn);
  });
  expect(seen.join('')).toMatch(/^\.?a\.+b\.+c\.*$/);
});

test('a rest follows a step that takes long, and what it left to do at once counts with it', async () => {
  const turns = new OneATurn({ plainMs: 5, rests: 3 });
  const times: number[] = [];
  await new Promise<void>((done) => {
    turns.add(() => void Promise.resolve().then(() => busy(15)));
    turns.add(() => times.push(performance.now()));
    turns.add(() => {
      times.push(performance.now());
      done();
    });
    times.push(performance.now());
  });
  const [first, second] = times as [number, number, number];
  // 15 ms of work, and three times the ten that it took too long.
  expect(second - first).toBeGreaterThanOrEqual(45);
});

test('a rest is for the lane of the dear step and those above it, and lanes take turns', async () => {
  const turns = new OneATurn({ plainMs: 5, rests: 3, lanes: 3 });
  const seen: string[] = [];
  await new Promise<void>((done) => {
    const say = (what: string, lane: number) => turns.add(() => seen.push(what), 'x', lane);
    say('begin', 0);
    turns.add(() => busy(25), 'x', 1);
    for (let each = 0; each < 5; each += 1) say('cheap', 0);
    say('dear', 1);
    turns.add(done, 'x', 2);
    say('dearer', 2);
  });
  expect(seen.slice(0, 7)).toEqual(['begin', 'cheap', 'cheap', 'cheap', 'cheap', 'cheap', 'dear']);
});

test('who causes many steps holds up nobody but itself', async () => {
  const turns = new OneATurn({ plainMs: 1_000, rests: 1 });
  const seen: string[] = [];
  await new Promise<void>((done) => {
    for (const whose of ['a', 'a', 'a', 'a', 'b', 'c']) turns.add(() => seen.push(whose), whose);
    turns.add(done, 'a');
  });
  // The first begins at once.
  expect(seen.join('')).toBe('aabcaa');
});

test('after the last step the next one begins anew', async () => {
  const turns = new OneATurn({ plainMs: 1_000, rests: 1 });
  for (let each = 0; each < 3; each += 1) await new Promise<void>((done) => turns.add(done));
});
