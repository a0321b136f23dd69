import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import { type OutputFile, publishDir, unpublishDir } from '../../../agent/base/atomic-dir';
import { onFsStep } from '../../support/fs-steps';
import { readEach } from '../../support/readers';
import { tempDir } from '../../support/temp-dir';

const NAMES = ['key.pem', 'cert-chain.pem', 'root-cert.pem'] as const;

/** Files of one generation: every text names it. */
const files = (generation: string): OutputFile[] =>
  NAMES.map((name) => ({
    name,
    bytes: Buffer.from(`${generation} ${name}`),
    mode: name === 'key.pem' ? 0o600 : 0o644,
  }));
const texts = (generation: string) => NAMES.map((name) => `${generation} ${name}`);
const modeOf = (path: string) => (statSync(path).mode & 0o7777).toString(8);

afterEach(() => {
  jest.restoreAllMocks();
});

describe('a published directory', () => {
  test('is durable: files and their directory before the link that leads to them, and that before the version it replaced goes', async () => {
    const dir = tempDir();
    await publishDir(dir, files('old'));
    const steps: string[] = [];
    const ends = await onFsStep(
      (name) =>
        ['writeFile', 'sync', 'symlink', 'rename', 'rmdir'].includes(name) && steps.push(name),
    );
    try {
      await publishDir(dir, files('new'));
    } finally {
      ends();
    }
    const written = ['writeFile', 'sync'];
    expect(steps).toEqual([
      ...written,
      ...written,
      ...written,
      'sync',
      'symlink',
      'rename',
      'sync',
      'rmdir',
      'sync',
    ]);
  });

  test('holds exactly three links through ..data and one version behind them', async () => {
    const dir = join(tempDir(), 'a', 'certs');
    for (const generation of ['one', 'two', 'three']) {
      await publishDir(dir, files(generation));
      expect(readEach(dir, NAMES)).toEqual(texts(generation));
    }
    const version = readlinkSync(join(dir, '..data'));
    expect(readdirSync(dir).sort()).toEqual(['..data', version, ...NAMES].sort());
    for (const name of NAMES) expect(readlinkSync(join(dir, name))).toBe(`..data/${name}`);
  });

  test.each([0o000, 0o022, 0o077, 0o777])('E11 has exact modes under umask %o', async (umask) => {
    const dir = join(tempDir(), 'certs');
    const before = process.umask(umask);
    try {
      await publishDir(dir, files('one'));
    } finally {
      process.umask(before);
    }
    expect(modeOf(dir)).toBe('700');
    expect(modeOf(join(dir, readlinkSync(join(dir, '..data'))))).toBe('700');
    expect(NAMES.map((name) => modeOf(join(dir, name)))).toEqual(['600', '644', '644']);
  });

  test('keeps the mode that it had, and the files of strangers', async () => {
    const dir = tempDir();
    chmodSync(dir, 0o750);
    writeFileSync(join(dir, 'notes.txt'), 'mine');
    await publishDir(dir, files('one'));
    expect(modeOf(dir)).toBe('750');
    expect(readFileSync(join(dir, 'notes.txt'), 'utf8')).toBe('mine');
  });

  test('takes over regular files that were there', async () => {
    const dir = tempDir();
    for (const { name, bytes } of files('old')) writeFileSync(join(dir, name), bytes);
    await publishDir(dir, files('new'));
    expect(readEach(dir, NAMES)).toEqual(texts('new'));
    for (const name of NAMES) expect(lstatSync(join(dir, name)).isSymbolicLink()).toBe(true);
    expect(readdirSync(dir)).toHaveLength(5);
  });

  test('is put right when another program replaced a link by a file', async () => {
    const dir = tempDir();
    await publishDir(dir, files('one'));
    const path = join(dir, 'root-cert.pem');

    unlinkSync(path);
    writeFileSync(path, 'foreign');
    await publishDir(dir, files('two'));
    expect(readEach(dir, NAMES)).toEqual(texts('two'));
  });

  test('loses the litter of killed writers, but nothing young and nothing foreign', async () => {
    const dir = tempDir();
    const litter = '..2026_01_01_00_00_00.000_0123456789abcdef';
    const young = '..2026_01_01_00_00_00.000_fedcba9876543210';
    for (const name of [litter, young, '..2026_01_01_00_00_00.123456789', '..mine']) {
      mkdirSync(join(dir, name));
      writeFileSync(join(dir, name, 'key.pem'), 'old key');
    }
    const link = '..data_tmp_0123456789abcdef';
    writeFileSync(join(dir, link), '');
    for (const name of [litter, link, '..mine']) utimesSync(join(dir, name), 1, 1);
    await publishDir(dir, files('one'));
    expect(existsSync(join(dir, litter))).toBe(false);
    expect(readdirSync(dir)).toEqual(
      expect.arrayContaining([young, '..mine', '..2026_01_01_00_00_00.123456789']),
    );
  });
});

describe('E10 a hostile directory', () => {
  test('planted links at every name are replaced, never written through', async () => {
    const [dir, victim] = [tempDir(), join(tempDir(), 'victim')];
    writeFileSync(victim, 'untouched');
    symlinkSync(victim, join(dir, 'key.pem'));
    linkSync(victim, join(dir, 'cert-chain.pem'));
    symlinkSync('/dev/zero', join(dir, 'root-cert.pem'));
    symlinkSync('/tmp', join(dir, '..data'));
    await publishDir(dir, files('one'));
    expect(readFileSync(victim, 'utf8')).toBe('untouched');
    expect(modeOf(victim)).not.toBe('600');
    expect(readEach(dir, NAMES)).toEqual(texts('one'));
    expect(readlinkSync(join(dir, '..data'))).toMatch(/^\.\.20/);
  });

  test.each(['key.pem', '..data'])(
    'a directory planted as %s is refused and left alone',
    async (name) => {
      const dir = tempDir();
      mkdirSync(join(dir, name));
      writeFileSync(join(dir, name, 'theirs'), 'x');
      await expect(publishDir(dir, files('one'))).rejects.toMatchObject({ code: 'ERR_OUTPUT' });
      expect(readFileSync(join(dir, name, 'theirs'), 'utf8')).toBe('x');
      expect(readdirSync(dir)).toEqual([name]);
    },
  );

  test('a directory that others may write to is told as a risk', async () => {
    const dir = tempDir();
    expect(await publishDir(dir, files('one'))).toBeUndefined();
    chmodSync(dir, 0o777);
    expect(await publishDir(dir, files('two'))).toMatchObject({
      dir,
      because: 'every user may write to it',
    });
  });

  test('names that would leave the directory are refused', async () => {
    for (const name of ['../x', 'a/b', '..data', '..', '.', '']) {
      await expect(
        publishDir(tempDir(), [{ name, bytes: Buffer.from('x'), mode: 0o600 }]),
      ).rejects.toMatchObject({ code: 'ERR_OUTPUT' });
    }
  });
});

describe('a directory that is no longer published', () => {
  test('is gone, with every version', async () => {
    const dir = join(tempDir(), 'certs');
    await publishDir(dir, files('one'));
    await unpublishDir(dir);
    expect(existsSync(dir)).toBe(false);
    await unpublishDir(dir);
  });

  test('stays for what others have put there', async () => {
    const dir = join(tempDir(), 'certs');
    await publishDir(dir, files('one'));
    writeFileSync(join(dir, 'note'), 'mine');
    symlinkSync('/etc/hostname', join(dir, 'link'));
    await unpublishDir(dir);
    expect(readdirSync(dir).sort()).toEqual(['link', 'note']);
  });
});
