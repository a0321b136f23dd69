import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { readSmallFile } from '../../../agent/base/read-file';
import { tempDir } from '../../support/temp-dir';

const limits = { field: 'ca.pem', code: 'ERR_FILE_SOURCE', maxBytes: 65_536 } as const;
const refusal = (about: object) =>
  expect.objectContaining({ code: 'ERR_FILE_SOURCE', field: 'ca.pem', retry: 'soon', ...about });

test('a file is read whole, through symbolic links', async () => {
  const dir = tempDir();
  const bytes = Buffer.alloc(65_536, 7);
  writeFileSync(join(dir, 'real'), bytes);
  symlinkSync('real', join(dir, 'link'));
  expect(await readSmallFile(join(dir, 'link'), limits)).toEqual(bytes);
});

test('an empty file is empty, and a file without a size is read', async () => {
  const path = join(tempDir(), 'empty');
  writeFileSync(path, '');
  expect(await readSmallFile(path, limits)).toHaveLength(0);
  expect((await readSmallFile('/proc/self/status', limits)).length).toBeGreaterThan(10);
});

test('a file beyond the limit is refused', async () => {
  const path = join(tempDir(), 'large');
  writeFileSync(path, Buffer.alloc(65_537));
  await expect(readSmallFile(path, limits)).rejects.toEqual(
    refusal({ rule: `must not be larger than 65536 bytes (${path})` }),
  );
});

test('E4 a FIFO, a directory and a device are refused without waiting for them', async () => {
  const dir = tempDir();
  execFileSync('mkfifo', [join(dir, 'fifo')]);
  mkdirSync(join(dir, 'dir'));
  for (const path of [join(dir, 'fifo'), join(dir, 'dir'), '/dev/zero']) {
    await expect(readSmallFile(path, limits)).rejects.toEqual(
      refusal({ rule: `must be a regular file (${path})` }),
    );
  }
});

test('a missing file is an error that names it, with its cause', async () => {
  const path = join(tempDir(), 'none');
  await expect(readSmallFile(path, limits)).rejects.toEqual(
    refusal({
      message: `read ${path}: there is no such file`,
      cause: expect.objectContaining({ code: 'ENOENT' }),
    }),
  );
});
