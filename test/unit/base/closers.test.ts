import { expect, test } from '@jest/globals';
import { Closers } from '../../../agent/base/closers';

function recorded(names: readonly string[]) {
  const ended: string[] = [];
  const closers = new Closers();
  for (const name of names) {
    closers.add(async () => {
      ended.push(`${name} begins`);
      await Promise.resolve();
      ended.push(`${name} ends`);
    });
  }
  return { closers, ended };
}

test('what was started last is ended first, and the next waits for it', async () => {
  const { closers, ended } = recorded(['store', 'server']);
  await closers.close();
  expect(ended).toEqual(['server begins', 'server ends', 'store begins', 'store ends']);
});

test('who closes twice waits for the same end, and nothing is ended twice', async () => {
  const { closers, ended } = recorded(['server']);
  await Promise.all([closers.close(), closers.close()]);
  await closers.close();
  expect(ended).toEqual(['server begins', 'server ends']);
});

test('one that cannot be ended keeps none of the others open, and is told', async () => {
  const { closers, ended } = recorded(['store']);
  closers.add(async () => {
    throw new Error('server: stuck');
  });
  await expect(closers.close()).rejects.toThrow('server: stuck');
  expect(ended).toEqual(['store begins', 'store ends']);
});

test('what was started before is ended last', async () => {
  const ended: string[] = [];
  const closers = new Closers([async () => void ended.push('authority')]);
  closers.add(async () => void ended.push('server'));
  await closers.close();
  expect(ended).toEqual(['server', 'authority']);
});
