import { expect, test } from '@jest/globals';
import { Pool } from '../../../agent/base/pool';

function thing(name: string, closed: string[]) {
  return {
    name,
    close: async () => {
      closed.push(name);
    },
  };
}

test('who asks for the same key at once gets the same thing, opened once', async () => {
  const pool = new Pool<ReturnType<typeof thing>>();
  let opened = 0;
  const open = async () => {
    opened += 1;
    return thing('one', []);
  };
  const [one, other] = await Promise.all([pool.lease('ca', open), pool.lease('ca', open)]);
  expect(one.value).toBe(other.value);
  expect(opened).toBe(1);
});

test('it is closed behind the last user, and opened anew for the next', async () => {
  const closed: string[] = [];
  const pool = new Pool<ReturnType<typeof thing>>();
  const one = await pool.lease('ca', async () => thing('first', closed));
  const other = await pool.lease('ca', async () => thing('never', closed));
  await one.release();
  expect(closed).toEqual([]);
  await other.release();
  expect(closed).toEqual(['first']);
  expect((await pool.lease('ca', async () => thing('second', closed))).value.name).toBe('second');
});

test('a lease that is given back twice takes nothing from the others', async () => {
  const closed: string[] = [];
  const pool = new Pool<ReturnType<typeof thing>>();
  const one = await pool.lease('ca', async () => thing('first', closed));
  await pool.lease('ca', async () => thing('never', closed));
  await Promise.all([one.release(), one.release()]);
  await one.release();
  expect(closed).toEqual([]);
});

test('what cannot be opened is told to all who waited, and tried again for the next', async () => {
  const pool = new Pool<ReturnType<typeof thing>>();
  const fails = async () => {
    throw new Error('no such directory');
  };
  const outcomes = await Promise.allSettled([pool.lease('ca', fails), pool.lease('ca', fails)]);
  expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  expect((await pool.lease('ca', async () => thing('now', []))).value.name).toBe('now');
});
