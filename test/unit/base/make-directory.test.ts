import { mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { systemClock } from '../../../agent/base/clock';
import { noLog } from '../../../agent/base/log';
import { makeDirectory } from '../../../agent/base/make-directory';
import { listenUnix } from '../../../agent/base/unix-socket';
import { tempDir } from '../../support/temp-dir';

test('what is missing on the way is made, with the mode that was asked for', async () => {
  const dir = tempDir();
  expect(await makeDirectory(join(dir, 'a/b/c'), 0o700)).toBe(join(dir, 'a'));
  for (const name of ['a', 'a/b', 'a/b/c'])
    expect(statSync(join(dir, name)).mode & 0o777).toBe(0o700);
});

test('a directory that exists is left as it is, also behind a symbolic link', async () => {
  const dir = tempDir();
  mkdirSync(join(dir, 'real'));
  symlinkSync('real', join(dir, 'link'));
  expect(await makeDirectory(join(dir, 'link'))).toBeUndefined();
  expect(await makeDirectory(join(dir, 'link/sub'))).toBe(join(dir, 'link/sub'));
  expect(statSync(join(dir, 'real/sub')).isDirectory()).toBe(true);
});

test('many that make the same directory at once all succeed', async () => {
  const path = join(tempDir(), 'a/b/c/d');
  await Promise.all(Array.from({ length: 20 }, () => makeDirectory(path)));
  expect(statSync(path).isDirectory()).toBe(true);
});

test('a file in the way is an error, and stays', async () => {
  const dir = tempDir();
  writeFileSync(join(dir, 'file'), 'mine');
  await expect(makeDirectory(join(dir, 'file'))).rejects.toMatchObject({ code: 'EEXIST' });
  await expect(makeDirectory(join(dir, 'file/sub/sub'))).rejects.toMatchObject({ code: 'ENOTDIR' });
});

test('a file system that lets nobody make directories ends it with an error, not with a loop', async () => {
  await expect(makeDirectory('/proc/nothing/here')).rejects.toMatchObject({ code: 'ENOENT' });
  const listening = listenUnix(
    { path: '/proc/nothing/socket', mode: 0o600, what: 'sds socket' },
    createServer(),
    {
      clock: systemClock,
      log: noLog,
    },
  );
  await expect(listening).rejects.toMatchObject({
    code: 'ERR_SOCKET',
    message: expect.stringContaining('cannot make the directory'),
  });
});
