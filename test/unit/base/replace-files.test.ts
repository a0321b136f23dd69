import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { replaceFiles } from '../../../agent/base/replace-files';
import { testWhere } from '../../support/peers';
import { tempDir } from '../../support/temp-dir';

const asRoot = testWhere(
  process.geteuid!() === 0,
  'root, whom others may lead astray',
  'run the tests as root',
);

const bytes = (text: string) => Buffer.from(text);

test('all files are replaced or made, with exact modes, and nothing else is left', async () => {
  const dir = tempDir();
  writeFileSync(join(dir, 'a'), 'old', { mode: 0o600 });
  const before = process.umask(0o077);
  try {
    await replaceFiles([
      { path: join(dir, 'a'), bytes: bytes('new'), mode: 0o644 },
      { path: join(dir, 'private/b'), bytes: bytes('secret'), mode: 0o600, directoryMode: 0o700 },
    ]);
  } finally {
    process.umask(before);
  }
  expect(readFileSync(join(dir, 'a'), 'utf8')).toBe('new');
  expect(readFileSync(join(dir, 'private/b'), 'utf8')).toBe('secret');
  expect(
    ['a', 'private', 'private/b'].map((name) =>
      (statSync(join(dir, name)).mode & 0o777).toString(8),
    ),
  ).toEqual(['644', '700', '600']);
  expect(readdirSync(dir, { recursive: true }).sort()).toEqual(['a', 'private', 'private/b']);
});

test.each([['there was'], ['there was not']])(
  'a failure after the first has its name takes that back, where %s one before',
  async (kind) => {
    const dir = tempDir();
    if (kind === 'there was') writeFileSync(join(dir, 'a'), 'old');
    writeFileSync(join(dir, 'b'), 'old b');
    // Where the old one is put aside, something lies already.
    const blocked = join(dir, `b.${process.pid}.old`);
    mkdirSync(blocked);
    const replaced = replaceFiles([
      { path: join(dir, 'a'), bytes: bytes('new'), mode: 0o644 },
      { path: join(dir, 'b'), bytes: bytes('new'), mode: 0o644 },
    ]);
    await expect(replaced).rejects.toMatchObject({
      code: 'ERR_OUTPUT',
      message: expect.stringMatching(/^write .*\/b: EEXIST/),
    });
    rmdirSync(blocked);
    expect(existsSync(join(dir, 'a')) ? readFileSync(join(dir, 'a'), 'utf8') : 'none').toBe(
      kind === 'there was' ? 'old' : 'none',
    );
    expect(readFileSync(join(dir, 'b'), 'utf8')).toBe('old b');
    expect(readdirSync(dir).filter((name) => name !== 'a')).toEqual(['b']);
  },
);

test('what cannot be written is known before anything is replaced', async () => {
  const dir = tempDir();
  writeFileSync(join(dir, 'a'), 'old');
  writeFileSync(join(dir, 'file'), '');
  const replaced = replaceFiles([
    { path: join(dir, 'a'), bytes: bytes('new'), mode: 0o644 },
    { path: join(dir, 'file/b'), bytes: bytes('new'), mode: 0o644 },
  ]);
  await expect(replaced).rejects.toMatchObject({ code: 'ERR_OUTPUT' });
  expect(readFileSync(join(dir, 'a'), 'utf8')).toBe('old');
  expect(readdirSync(dir).sort()).toEqual(['a', 'file']);
});

asRoot(
  'field E2 root replaces nothing where another user could exchange names, and makes no directory there',
  async () => {
    const dir = tempDir();
    mkdirSync(join(dir, 'open'));
    chmodSync(join(dir, 'open'), 0o777);
    const replacing = replaceFiles([
      { path: join(dir, 'a'), bytes: bytes('new'), mode: 0o644 },
      { path: join(dir, 'open/below/b'), bytes: bytes('new'), mode: 0o644 },
    ]);
    await expect(replacing).rejects.toMatchObject({
      code: 'ERR_OUTPUT',
      hint: expect.stringContaining(`chmod go-w ${join(dir, 'open')}`),
    });
    expect(readdirSync(dir, { recursive: true })).toEqual(['open']);
  },
);
