import {
  lutimesSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { type OutputFile, publishDir } from '../../agent/base/atomic-dir';
import { bundle, run, start } from '../support/child';
import { onFsStep } from '../support/fs-steps';
import { readEach } from '../support/readers';
import { tempDir } from '../support/temp-dir';

const FULL = process.env.KEYTURN_TEST === 'full';
const NAMES = ['key.pem', 'cert-chain.pem', 'root-cert.pem'] as const;
const files = (generation: string): OutputFile[] =>
  NAMES.map((name) => ({ name, bytes: Buffer.from(generation), mode: 0o600 }));

/** A directory as a writer may find it, all its files of generation `old`. */
const BEFORE: Record<string, (dir: string) => Promise<void>> = {
  'a published directory': async (dir) => {
    await publishDir(dir, files('old'));
  },
  'regular files': async (dir) => {
    for (const name of NAMES) writeFileSync(join(dir, name), 'old');
  },
  'files of which one is a link already': async (dir) => {
    await publishDir(dir, files('old'));

    unlinkSync(join(dir, 'cert-chain.pem'));
    writeFileSync(join(dir, 'cert-chain.pem'), 'old');
  },
};

/** Whichever generation a reader finds, it is one for all names, and none is missing. */
function expectOneGeneration(dir: string): string {
  const seen = new Set(readEach(dir, NAMES));
  expect([['old'], ['new']]).toContainEqual([...seen]);
  return [...seen][0]!;
}

function expectNoLitter(dir: string): void {
  expect(readdirSync(dir).sort()).toEqual(
    ['..data', readlinkSync(join(dir, '..data')), ...NAMES].sort(),
  );
}

describe('E7 a SIGKILL at any step of a write leaves a matching set, and the next writer mends the rest', () => {
  const writer = () =>
    bundle(`
      import { publishDir } from './agent/base/atomic-dir';
      import { onFsStep } from './test/support/fs-steps';
      const [dir, generation, killAt] = process.argv.slice(2);
      const files = ${JSON.stringify(NAMES)}.map((name) => ({ name, bytes: Buffer.from(generation), mode: 0o600 }));
      onFsStep((_, step) => { if (step === Number(killAt)) process.kill(process.pid, 'SIGKILL'); }).then(() => publishDir(dir, files));
    `);

  test.each(Object.keys(BEFORE))('over %s', async (kind) => {
    const file = writer();
    const stride = FULL ? 1 : 2;
    const outcomes: string[] = [];
    for (let killAt = 1; ; killAt += stride) {
      const dir = tempDir();
      await BEFORE[kind]!(dir);
      const exit = await run(file, [dir, 'new', String(killAt)]);
      outcomes.push(expectOneGeneration(dir));
      if (exit.signal !== 'SIGKILL') {
        expect(exit).toMatchObject({ code: 0, stderr: '' });
        break;
      }
      // What the killed writer left is old by the time that the next one comes.
      for (const name of readdirSync(dir)) lutimesSync(join(dir, name), 1, 1);
      await publishDir(dir, files('new'));
      expect(expectOneGeneration(dir)).toBe('new');
      expectNoLitter(dir);
    }
    // Both sides of the exchange were met.
    expect(new Set(outcomes)).toEqual(new Set(['old', 'new']));
    expect(outcomes.length).toBeGreaterThan(10 / stride);
  });
});

describe('E5 E6 an error at any step of a write leaves a matching set and no litter', () => {
  test.each(['ENOSPC', 'EDQUOT', 'EROFS', 'EACCES', 'EIO'])('%s', async (code) => {
    for (const [kind, prepare] of Object.entries(BEFORE)) {
      for (let failAt = 1, done = false; !done; failAt += code === 'ENOSPC' || FULL ? 1 : 7) {
        const dir = tempDir();
        await prepare(dir);
        let failing = '';
        const restore = await onFsStep((name, step) => {
          if (step !== failAt) return;
          failing = name;
          throw Object.assign(new Error(`${code}: injected, ${name}`), { code });
        });
        const outcome = await publishDir(dir, files('new')).then(
          () => undefined,
          (caught) => caught,
        );
        restore();
        done = failing === '';
        if (outcome) expect(outcome).toMatchObject({ code: 'ERR_OUTPUT', retry: 'soon' });
        expectOneGeneration(dir);
        await publishDir(dir, files('new'));
        expect({ kind, failing, seen: expectOneGeneration(dir) }).toEqual({
          kind,
          failing,
          seen: 'new',
        });
      }
    }
  });

  test('an unchanged directory after a full disk has the old version and nothing else', async () => {
    const dir = tempDir();
    await publishDir(dir, files('old'));
    const restore = await onFsStep((name) => {
      if (name === 'writeFile')
        throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    });
    await expect(publishDir(dir, files('new'))).rejects.toMatchObject({
      code: 'ERR_OUTPUT',
      hint: 'free some space on its file system',
    });
    restore();
    expect(expectOneGeneration(dir)).toBe('old');
    expectNoLitter(dir);
  });
});

describe('E8 a reader that resolves ..data once', () => {
  /** What a careful reader does: one resolution, and again when that version has gone. */
  function readSet(dir: string): Set<string> {
    for (;;) {
      const version = join(dir, readlinkSync(join(dir, '..data')));
      const seen = readEach(version, NAMES);
      if (seen.every((text) => text !== undefined)) return new Set(seen as string[]);
    }
  }

  test('never sees a mixed set, however often two writers at once replace it', async () => {
    const dir = tempDir();
    for (const name of NAMES) writeFileSync(join(dir, name), 'old');
    const rounds = FULL ? 5_000 : 250;
    const file = bundle(`
      import { publishDir } from './agent/base/atomic-dir';
      const [dir, writer] = process.argv.slice(2);
      (async () => {
        for (let round = 0; round < ${rounds}; round += 1) {
          const bytes = Buffer.from(writer + round);
          await publishDir(dir, ${JSON.stringify(NAMES)}.map((name) => ({ name, bytes, mode: 0o600 })));
        }
      })();
    `);
    await publishDir(dir, files('old'));
    const writers = ['a', 'b'].map((name) => start(file, [dir, name]));
    let running = writers.length;
    for (const writer of writers) void writer.exited.then(() => (running -= 1));
    let reads = 0;
    const generations = new Set<string>();
    while (running > 0) {
      for (let burst = 0; burst < 50; burst += 1) {
        const set = readSet(dir);
        expect(set.size).toBe(1);
        generations.add([...set][0]!);
        reads += 1;
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    for (const writer of writers)
      expect(await writer.exited).toMatchObject({ code: 0, stderr: '' });
    expect(reads).toBeGreaterThan(rounds);
    expect(generations.size).toBeGreaterThan(rounds / 10);
    expect(readFileSync(join(dir, 'key.pem'), 'utf8')).toMatch(new RegExp(`^[ab]${rounds - 1}$`));
  }, 900_000);
});
