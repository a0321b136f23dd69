import { execFileSync } from 'node:child_process';
import { mkdirSync, renameSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import type { AgentError } from '../../../agent/base/errors';
import { readPolicyFiles } from '../../../agent/cli/policy-files';
import type { Terminal } from '../../../agent/cli/terminal';
import { tempDir } from '../../support/temp-dir';

/** Makes a directory of these files, directories where a name ends in a slash, and links. */
function directory(entries: Readonly<Record<string, string | { readonly to: string }>>): string {
  const dir = tempDir();
  for (const [name, what] of Object.entries(entries)) {
    mkdirSync(join(dir, name, '..'), { recursive: true });
    if (typeof what === 'string') writeFileSync(join(dir, name), what);
    else symlinkSync(what.to, join(dir, name));
  }
  return dir;
}

async function read(cwd: string, ...paths: string[]) {
  const files = await readPolicyFiles(paths.length > 0 ? paths : ['.'], { cwd } as Terminal);
  return files.map(({ name, bytes }) => `${name} ${Buffer.from(bytes)}`);
}

const refusal = (reading: Promise<unknown>) =>
  reading.then(
    () => 'nothing',
    (caught) => `${(caught as AgentError).code} ${(caught as AgentError).message}`,
  );

describe('a directory', () => {
  test('is read with those below it, in the order of paths, without hidden and other files', async () => {
    const dir = directory({
      'b.yaml': 'b',
      'a.yml': 'a',
      'c/d/e.json': 'e',
      'C.YAML': 'C',
      'README.md': 'no',
      '.hidden.yaml': 'no',
      '.git/x.yaml': 'no',
      'f.yaml.bak': 'no',
    });
    expect(await read(dir)).toEqual(['C.YAML C', 'a.yml a', 'b.yaml b', 'c/d/e.json e']);
  });

  test('may be a mounted ConfigMap, whose names are links through ..data', async () => {
    const dir = directory({
      '..2026_01/a.yaml': 'old a',
      '..2026_02/a.yaml': 'new a',
      '..data': { to: '..2026_02' },
      'a.yaml': { to: '..data/a.yaml' },
    });
    expect(await read(dir)).toEqual(['a.yaml new a']);
  });

  test('may hold links to its own directories and files', async () => {
    const dir = directory({
      'real/a.yaml': 'a',
      linked: { to: 'real' },
      'b.yaml': { to: 'real/a.yaml' },
      other: { to: '/dev/null' },
      dangling: { to: 'nowhere' },
    });
    expect(await read(dir)).toEqual(['b.yaml a', 'linked/a.yaml a', 'real/a.yaml a']);
  });

  test.each([
    [
      'a file that leads out',
      { 'a.yaml': { to: '/etc/hostname' } },
      /^ERR_POLICY a\.yaml: leads out of \., to \/etc\/hostname$/,
    ],
    [
      'a directory that leads out',
      { sub: { to: '/etc' } },
      /^ERR_POLICY sub: leads out of \., to \/etc$/,
    ],
    [
      'a directory that holds itself',
      { 'sub/up': { to: '..' } },
      /^ERR_POLICY sub\/up: is a link to what holds it$/,
    ],
    ['a link to itself', { 'a.yaml': { to: 'a.yaml' } }, /^ERR_INPUT a\.yaml: a link to nothing$/],
    [
      'a link to nothing',
      { 'a.yaml': { to: 'gone.yaml' } },
      /^ERR_INPUT a\.yaml: a link to nothing$/,
    ],
    [
      'more than 20 directories deep',
      { [`${'d/'.repeat(21)}a.yaml`]: 'a' },
      /^ERR_POLICY (d\/?){21}: must not be more than 20 directories deep$/,
    ],
    [
      'a file beyond 1 MiB',
      { 'a.yaml': 'x'.repeat((1 << 20) + 1) },
      /^ERR_INPUT a\.yaml: must not be larger than 1048576 bytes/,
    ],
  ])('with %s is refused', async (_, entries, message) => {
    expect(await refusal(read(directory(entries)))).toMatch(message);
  });

  test('with a FIFO is refused without waiting for a writer', async () => {
    const dir = tempDir();
    execFileSync('mkfifo', [join(dir, 'a.yaml')]);
    expect(await refusal(read(dir))).toMatch(/^ERR_INPUT a\.yaml: must be a regular file/);
  });

  test('of more than 64 MiB is refused before it is read', async () => {
    const dir = tempDir();
    for (let index = 0; index < 65; index += 1) {
      writeFileSync(join(dir, `${index}.yaml`), '');
      truncateSync(join(dir, `${index}.yaml`), 1 << 20);
    }
    expect(await refusal(read(dir))).toBe('ERR_POLICY .: must not hold more than 64 MiB');
  });

  test('that does not exist is refused', async () => {
    expect(await refusal(read(tempDir(), 'gone'))).toBe(
      'ERR_INPUT read gone: there is no such file or directory',
    );
  });

  test('whose ..data is exchanged all the time is never read half old and half new', async () => {
    const dir = directory({ 'a.yaml': { to: '..data/a.yaml' }, 'b.yaml': { to: '..data/b.yaml' } });
    let version = 0;
    const swap = () => {
      version += 1;
      mkdirSync(join(dir, `..v${version}`));
      for (const name of ['a', 'b'])
        writeFileSync(join(dir, `..v${version}`, `${name}.yaml`), String(version));
      symlinkSync(`..v${version}`, join(dir, '..tmp'));
      renameSync(join(dir, '..tmp'), join(dir, '..data'));
    };
    swap();
    for (let round = 0; round < 40; round += 1) {
      const reading = read(dir);
      // At each of the steps of the reading's first look, or of some of them.
      for (let turn = 0; turn < round; turn += 1) {
        await new Promise(setImmediate);
        swap();
      }
      const [a, b] = await reading;
      expect(a!.split(' ')[1]).toBe(b!.split(' ')[1]);
    }
  });
});
