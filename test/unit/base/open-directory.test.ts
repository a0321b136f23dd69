import {
  chmodSync,
  chownSync,
  lchownSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import {
  assertTrustedPath,
  openDirectory,
  removeDirectory,
} from '../../../agent/base/open-directory';
import { testWhere } from '../../support/peers';
import { tempDir } from '../../support/temp-dir';

const asRoot = testWhere(
  process.geteuid!() === 0,
  'root, to make directories of other users',
  'run the tests as root',
);
const OTHER = 65_534;
const THIRD = 65_533;

function make(path: string, uid = process.geteuid!(), mode = 0o755): string {
  mkdirSync(path);
  chownSync(path, uid, process.getegid!());
  chmodSync(path, mode);
  return path;
}

/** What is judged of a path, below a directory of ours. */
function judge(path: string, owner?: number) {
  const { risk, belowOwner, close } = openDirectory(path, { owner });
  close();
  return { risk: risk?.because, belowOwner };
}

describe('a directory that is opened', () => {
  test('leads into what it was, whatever becomes of its path', () => {
    const home = tempDir();
    symlinkSync(make(join(home, 'real')), join(home, 'link'));
    const opened = openDirectory(join(home, 'link/../link/.'));
    expect(opened.real).toBe(realpathSync(join(home, 'real')));
    writeFileSync(opened.at('file'), '');
    expect(readdirSync(join(home, 'real'))).toEqual(['file']);
    expect(opened.text(new Error(`no ${opened.at('file')}`))).toBe(
      `no ${join(home, 'link/../link/.')}/file`,
    );
    opened.close();
  });

  test('is made where it is missing, with that mode whatever the umask', () => {
    const home = tempDir();
    const before = process.umask(0o777);
    try {
      openDirectory(join(home, 'a/b'), { make: 0o750 }).close();
    } finally {
      process.umask(before);
    }
    for (const name of ['a', 'a/b']) expect(statSync(join(home, name)).mode & 0o7777).toBe(0o750);
    expect(() => openDirectory(join(home, 'c'))).toThrow('ENOENT');
  });

  test('is no file, and no link that leads to itself', () => {
    const home = tempDir();
    writeFileSync(join(home, 'file'), '');
    symlinkSync('loop', join(home, 'loop'));
    expect(() => openDirectory(join(home, 'file'))).toThrow('ENOTDIR');
    expect(() => openDirectory(join(home, 'loop'))).toThrow('ELOOP');
  });

  test('is removed when it is empty, and a link to it is not', () => {
    const home = tempDir();
    symlinkSync(make(join(home, 'real')), join(home, 'link'));
    expect(() => removeDirectory(join(home, 'link'))).toThrow('ENOTDIR');
    removeDirectory(join(home, 'real'));
    expect(readdirSync(home)).toEqual(['link']);
  });
});

describe('field E2 a directory is judged', () => {
  test.each([
    [0o755, undefined],
    [0o775, /^its group \d+ may write to it$/],
    [0o777, /^every user may write to it$/],
    [0o757, /^every user may write to it$/],
    [0o1777, undefined],
    [0o1775, undefined],
  ] as const)('by its mode, %o', (mode, risk) => {
    const dir = make(join(tempDir(), 'dir'), undefined, mode);
    make(join(dir, 'below'));
    for (const path of [dir, join(dir, 'below')]) {
      if (risk === undefined) expect(judge(path).risk).toBeUndefined();
      else expect(judge(path).risk).toMatch(risk);
    }
  });

  asRoot('by its owner, who may be the one that is expected, but not with others', () => {
    const dir = make(join(tempDir(), 'dir'), OTHER);
    make(join(dir, 'below'));
    expect(judge(dir)).toEqual({ risk: `it belongs to user ${OTHER}`, belowOwner: false });
    expect(judge(dir, OTHER)).toEqual({ risk: undefined, belowOwner: false });
    // Its own name is its parent's; those in it are its owner's to exchange.
    expect(judge(join(dir, 'below'), OTHER)).toEqual({ risk: undefined, belowOwner: true });
    expect(judge(dir, THIRD).risk).toBe(`it belongs to user ${OTHER}`);
    chmodSync(dir, 0o777);
    expect(judge(dir, OTHER).risk).toBe('every user may write to it');
  });

  asRoot('by the links on the way, which are their owners to exchange', () => {
    const shared = make(join(tempDir(), 'shared'), 0, 0o1777);
    make(join(shared, 'dir'));
    for (const [name, uid] of [
      ['ours', 0],
      ['theirs', OTHER],
    ] as const) {
      symlinkSync('dir', join(shared, name));
      lchownSync(join(shared, name), uid, uid);
    }
    expect(judge(join(shared, 'ours')).risk).toBeUndefined();
    expect(judge(join(shared, 'theirs'), OTHER).risk).toBe(
      `the symbolic link theirs in it belongs to user ${OTHER}`,
    );
  });

  asRoot('before anything is made below it', () => {
    const dir = make(join(tempDir(), 'dir'), 0, 0o777);
    const refuse = { what: 'test', code: 'ERR_OUTPUT', of: 'all' } as const;
    expect(() => openDirectory(join(dir, 'below'), { make: 0o755, refuse })).toThrow(
      'other users can exchange names',
    );
    expect(readdirSync(dir)).toEqual([]);
    openDirectory(join(dir, 'below'), { make: 0o755, refuse: { ...refuse, of: 'links' } }).close();
    expect(readdirSync(dir)).toEqual(['below']);
  });

  test('only where this process may change files of others', () => {
    const dir = make(join(tempDir(), 'dir'), undefined, 0o777);
    const refuse = () => assertTrustedPath(join(dir, 'missing'), 'test', 'ERR_OUTPUT');
    if (process.geteuid!() !== 0) {
      refuse();
      return;
    }
    expect(refuse).toThrow(
      `test ${join(dir, 'missing')}: other users can exchange names in ${dir}: every user may write to it`,
    );
    process.seteuid!(OTHER);
    try {
      refuse();
    } finally {
      process.seteuid!(0);
    }
  });
});
