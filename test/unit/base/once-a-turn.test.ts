import { expect, test } from '@jest/globals';
import { onceATurn } from '../../../agent/base/once-a-turn';

const nextTurn = () => new Promise((done) => setImmediate(done));

test('who asks in the same turn, or before it is there, gets the same', async () => {
  let made = 0;
  const ask = onceATurn(async () => {
    await nextTurn();
    made += 1;
    return made;
  });
  expect(await Promise.all([ask(), ask(), nextTurn().then(ask)])).toEqual([1, 1, 1]);
  expect(await ask()).toBe(1);
  await nextTurn();
  expect(await ask()).toBe(2);
});

test('a failure is told to all who asked, and not kept', async () => {
  let tries = 0;
  const ask = onceATurn(async () => {
    tries += 1;
    if (tries === 1) throw new Error('not now');
    return tries;
  });
  await expect(Promise.all([ask(), ask()])).rejects.toThrow('not now');
  await nextTurn();
  expect(await ask()).toBe(2);
});
