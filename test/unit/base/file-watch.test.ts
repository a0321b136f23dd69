import fs, {
  chmodSync,
  mkdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import { systemClock } from '../../../agent/base/clock';
import type { Deps } from '../../../agent/base/deps';
import { type FileWatch, watchFiles } from '../../../agent/base/file-watch';
import { noLog } from '../../../agent/base/log';
import { noMetrics } from '../../../agent/base/metrics';
import { tempDir } from '../../support/temp-dir';
import { TestClock } from '../../support/test-clock';

const deps: Deps = { clock: systemClock, random: () => 0.5, log: noLog, metrics: noMetrics };
const watches: FileWatch[] = [];

afterEach(async () => {
  for (const watch of watches.splice(0)) await watch.close();
  jest.restoreAllMocks();
});

/** Counts what a watch tells, and waits for the next telling. */
async function observe(paths: readonly string[], using: Deps = deps) {
  let count = 0;
  let wake: () => void = () => undefined;
  watches.push(
    await watchFiles(
      paths,
      () => {
        count += 1;
        wake();
      },
      using,
    ),
  );
  return {
    count: () => count,
    async reaches(wanted: number) {
      while (count < wanted) await new Promise<void>((resolve) => (wake = resolve));
    },
    quiet: () => new Promise((resolve) => setTimeout(resolve, 400)),
  };
}

/** Makes `..data` lead to a new version holding `files`, as a kubelet does. */
function swapData(dir: string, version: string, files: Record<string, string>): void {
  mkdirSync(join(dir, version));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, version, name), text);
  symlinkSync(version, join(dir, '..data_tmp'));
  renameSync(join(dir, '..data_tmp'), join(dir, '..data'));
}

describe('a watched file', () => {
  test('is told about when it is replaced, again and again', async () => {
    const path = join(tempDir(), 'cert.pem');
    writeFileSync(path, 'one');
    const watch = await observe([path]);
    for (let round = 1; round <= 3; round += 1) {
      writeFileSync(`${path}.new`, `text ${round}`);
      renameSync(`${path}.new`, path);
      await watch.reaches(round);
    }
    await watch.quiet();
    expect(watch.count()).toBe(3);
  });

  test('is told about when it is written in place, changes mode, is removed and made again', async () => {
    const path = join(tempDir(), 'cert.pem');
    writeFileSync(path, 'one');
    const watch = await observe([path]);
    writeFileSync(path, 'two');
    await watch.reaches(1);
    chmodSync(path, 0o600);
    await watch.reaches(2);
    unlinkSync(path);
    await watch.reaches(3);
    writeFileSync(path, 'three');
    await watch.reaches(4);
  });

  test('one atomic change of several files is told once, and a stranger beside them not at all', async () => {
    const dir = tempDir();
    swapData(dir, '..v1', { 'key.pem': 'k1', 'cert.pem': 'c1' });
    for (const name of ['key.pem', 'cert.pem']) symlinkSync(join('..data', name), join(dir, name));
    const watch = await observe([join(dir, 'key.pem'), join(dir, 'cert.pem')]);
    swapData(dir, '..v2', { 'key.pem': 'k2', 'cert.pem': 'c2' });
    rmSync(join(dir, '..v1'), { recursive: true });
    await watch.reaches(1);
    writeFileSync(join(dir, 'stranger'), 'x');
    await watch.quiet();
    expect(watch.count()).toBe(1);
  });

  test('a ..data swap is noticed on the second and every later rotation', async () => {
    const dir = tempDir();
    swapData(dir, '..v0', { 'cert.pem': 'c0' });
    symlinkSync('..data/cert.pem', join(dir, 'cert.pem'));
    const watch = await observe([join(dir, 'cert.pem')]);
    for (let version = 1; version <= 5; version += 1) {
      swapData(dir, `..v${version}`, { 'cert.pem': `c${version}` });
      rmSync(join(dir, `..v${version - 1}`), { recursive: true });
      await watch.reaches(version);
    }
  });

  test('a symbolic link to another directory is followed to its end', async () => {
    const [here, there] = [tempDir(), tempDir()];
    writeFileSync(join(there, 'real.pem'), 'one');
    symlinkSync(there, join(here, 'middle'));
    symlinkSync('middle/real.pem', join(here, 'cert.pem'));
    const watch = await observe([join(here, 'cert.pem')]);
    writeFileSync(join(there, 'real.pem'), 'two');
    await watch.reaches(1);
    const elsewhere = tempDir();
    writeFileSync(join(elsewhere, 'real.pem'), 'three');
    unlinkSync(join(here, 'middle'));
    symlinkSync(elsewhere, join(here, 'middle'));
    await watch.reaches(2);
    const seen = watch.count();
    writeFileSync(join(elsewhere, 'real.pem'), 'four');
    await watch.reaches(seen + 1);
  });

  test('is picked up when its directory is made later, removed, and made again', async () => {
    const path = join(tempDir(), 'a', 'b', 'cert.pem');
    const watch = await observe([path]);
    for (const round of [1, 2]) {
      const before = watch.count();
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, `round ${round}`);
      await watch.reaches(before + 1);
      await watch.quiet();
      const there = watch.count();
      writeFileSync(path, 'again');
      await watch.reaches(there + 1);
      rmSync(dirname(dirname(path)), { recursive: true });
      await watch.reaches(there + 2);
      await watch.quiet();
    }
  });

  test('is noticed when its whole directory is exchanged for another', async () => {
    const parent = tempDir();
    for (const name of ['live', 'next']) {
      mkdirSync(join(parent, name));
      writeFileSync(join(parent, name, 'cert.pem'), name);
    }
    const watch = await observe([join(parent, 'live', 'cert.pem')]);
    renameSync(join(parent, 'live'), join(parent, 'old'));
    renameSync(join(parent, 'next'), join(parent, 'live'));
    await watch.reaches(1);
  });

  test('is found by a relative path, whatever the working directory becomes', async () => {
    const path = join(tempDir(), 'cert.pem');
    writeFileSync(path, 'one');
    const watch = await observe([relative(process.cwd(), path)]);
    const before = process.cwd();
    process.chdir('/');
    try {
      writeFileSync(path, 'two');
      await watch.reaches(1);
    } finally {
      process.chdir(before);
    }
  });

  test('links in a circle do no harm', async () => {
    const dir = tempDir();
    symlinkSync('b', join(dir, 'a'));
    symlinkSync('a', join(dir, 'b'));
    const watch = await observe([join(dir, 'a')]);
    unlinkSync(join(dir, 'a'));
    writeFileSync(join(dir, 'a'), 'real');
    await watch.reaches(1);
  });

  test('nothing is told after close', async () => {
    const path = join(tempDir(), 'cert.pem');
    const watch = await observe([path]);
    await watches.pop()!.close();
    writeFileSync(path, 'late');
    await watch.quiet();
    expect(watch.count()).toBe(0);
  });
});

describe('without inotify', () => {
  test('E13 exhausted inotify falls back to looking every few seconds, counted once', async () => {
    jest.spyOn(fs, 'watch').mockImplementation(() => {
      throw Object.assign(new Error('ENOSPC: System limit for number of file watchers reached'), {
        code: 'ENOSPC',
      });
    });
    const clock = new TestClock();
    const counted: string[] = [];
    const path = join(tempDir(), 'cert.pem');
    const watch = await observe([path], {
      ...deps,
      clock,
      metrics: { record: (name) => counted.push(name) },
    });
    writeFileSync(path, 'new');
    const reached = watch.reaches(1);
    await clock.advanceBy(5_000);
    await reached;
    expect(counted).toEqual(['file_watch_failures_total']);
  });

  test('a working watch that stays silent is backed by a slow look', async () => {
    const path = join(tempDir(), 'cert.pem');
    const silent = Object.assign(new (await import('node:events')).EventEmitter(), {
      close: () => undefined,
    });
    jest.spyOn(fs, 'watch').mockReturnValue(silent as unknown as fs.FSWatcher);
    const clock = new TestClock();
    const watch = await observe([path], { ...deps, clock });
    writeFileSync(path, 'new');
    const reached = watch.reaches(1);
    await clock.advanceBy(60_000);
    await reached;
  });
});
