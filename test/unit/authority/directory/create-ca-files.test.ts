import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { openAuthority } from '../../../../agent/authority/authority';
import { CA_FILES } from '../../../../agent/authority/directory/ca-files';
import { ensureCaFiles } from '../../../../agent/authority/directory/create-ca-files';
import { makeRoot } from '../../../../agent/authority/make-root';
import { directEngine } from '../../../../agent/identity/direct-engine';
import { buildOpenCaProgram, startOpenCa } from '../../../support/open-ca-process';
import { tempDir } from '../../../support/temp-dir';
import { testDeps } from '../../../support/test-deps';

const NAMES = Object.values(CA_FILES).sort();
const FULL = process.env.KEYTURN_TEST === 'full';

const make = () => makeRoot(directEngine, 'cluster.local', 'ecdsa-p256', Date.now());
const open = (dir: string, deps = testDeps()) =>
  openAuthority(
    { dir, trustDomain: 'cluster.local', rootAlgorithm: 'ecdsa-p256', engine: directEngine },
    deps,
  );

/** Opens the directory as the next start would, and says which CA is in it. */
async function reopen(dir: string): Promise<string> {
  const authority = await open(dir);
  await authority.close();
  return authority.trust.value.version;
}

const modeOf = (path: string) => (statSync(path).mode & 0o7777).toString(8);

describe('a new CA directory', () => {
  test('is made 0700 with the four files, the key 0600, and nothing else', async () => {
    const dir = join(tempDir(), 'var/lib/ca');
    expect(await ensureCaFiles(dir, make)).toBe(true);
    expect(readdirSync(dir).sort()).toEqual(NAMES);
    expect([modeOf(dir), modeOf(join(dir, 'ca-key.pem'))]).toEqual(['700', '600']);
    const root = readFileSync(join(dir, 'root-cert.pem'));
    expect(readFileSync(join(dir, 'ca-cert.pem'))).toEqual(root);
    expect(readFileSync(join(dir, 'cert-chain.pem'))).toEqual(root);
  });

  test.each([0o000, 0o077])('has the same modes under umask %o', async (mask) => {
    const dir = join(tempDir(), 'ca');
    const before = process.umask(mask);
    try {
      await ensureCaFiles(dir, make);
    } finally {
      process.umask(before);
    }
    expect([dir, ...NAMES.map((name) => join(dir, name))].map(modeOf)).toEqual([
      '700',
      '644',
      '600',
      '644',
      '644',
    ]);
  });

  test('is filled where it exists and is empty, as a mounted volume is', async () => {
    const dir = tempDir();
    mkdirSync(join(dir, 'lost+found'));
    expect(await ensureCaFiles(dir, make)).toBe(true);
    expect(readdirSync(dir).sort()).toEqual([...NAMES, 'lost+found'].sort());
  });

  test('is used as it is the second time', async () => {
    const dir = join(tempDir(), 'ca');
    const first = await reopen(dir);
    const before = readdirSync(dir).map((name) => statSync(join(dir, name)).mtimeMs);
    expect(await reopen(dir)).toBe(first);
    expect(readdirSync(dir).map((name) => statSync(join(dir, name)).mtimeMs)).toEqual(before);
  });

  test('is not filled while others may enter it', async () => {
    const dir = tempDir();
    chmodSync(dir, 0o755);
    await expect(ensureCaFiles(dir, make)).rejects.toMatchObject({
      code: 'ERR_CA_STATE',
      message: `open ${dir}: mode 0755 is open to others`,
      hint: `chmod 0700 ${dir}`,
    });
    expect(readdirSync(dir)).toEqual([]);
  });

  test('cannot be a file', async () => {
    const path = join(tempDir(), 'ca');
    writeFileSync(path, '');
    await expect(ensureCaFiles(path, make)).rejects.toMatchObject({
      code: 'ERR_CA_STATE',
      message: expect.stringContaining(path),
    });
  });
});

describe('a CA directory that holds some of the files', () => {
  const subsets = Array.from({ length: 14 }, (_, index) =>
    NAMES.filter((__, bit) => ((index + 1) >> bit) & 1),
  );

  test.each(subsets.map((present) => [present]))(
    'is refused, naming what is missing beside %j',
    async (present) => {
      const dir = join(tempDir(), 'ca');
      await ensureCaFiles(dir, make);
      const missing = NAMES.filter((name) => !present.includes(name));
      for (const name of missing) rmSync(join(dir, name));
      await expect(ensureCaFiles(dir, make)).rejects.toMatchObject({
        code: 'ERR_CA_STATE',
        retry: 'never',
      });
      const { message } = await ensureCaFiles(dir, make).catch((error) => error);
      for (const name of NAMES)
        expect(message.split(' missing beside ')[missing.includes(name) ? 0 : 1]).toContain(name);
      expect(readdirSync(dir).sort()).toEqual(present);
    },
  );

  test('counts a dangling link as missing', async () => {
    const dir = tempDir();
    for (const name of NAMES) symlinkSync(join('..data', name), join(dir, name));
    const key = join(dir, 'ca-key.pem');
    rmSync(key);
    writeFileSync(key, 'key', { mode: 0o600 });
    await expect(ensureCaFiles(dir, make)).rejects.toMatchObject({
      message: `open CA directory ${dir}: ca-cert.pem, cert-chain.pem, root-cert.pem missing beside ca-key.pem`,
    });
  });

  test.each([0, 1, 2, 3])(
    'is finished from the draft of a process that died after %d of the last three links',
    async (linked) => {
      const dir = tempDir();
      const draft = join(dir, `.draft-${'0'.repeat(32)}`);
      const { keyPem, rootPem } = await make();
      mkdirSync(draft, { mode: 0o700 });
      writeFileSync(join(draft, 'ca-key.pem'), keyPem.reveal(), { mode: 0o600 });
      for (const name of [CA_FILES.cert, CA_FILES.chain, CA_FILES.root])
        writeFileSync(join(draft, name), rootPem);
      for (const name of [CA_FILES.key, CA_FILES.cert, CA_FILES.chain, CA_FILES.root].slice(
        0,
        linked + 1,
      )) {
        linkSync(join(draft, name), join(dir, name));
      }
      expect(await ensureCaFiles(dir, () => Promise.reject(new Error('made another CA')))).toBe(
        false,
      );
      expect(readdirSync(dir).sort()).toEqual(NAMES);
      expect(readFileSync(join(dir, 'root-cert.pem'))).toEqual(rootPem);
    },
  );

  test('is not finished from the draft of another key', async () => {
    const dir = tempDir();
    const draft = join(dir, `.draft-${'0'.repeat(32)}`);
    mkdirSync(draft, { mode: 0o700 });
    const { keyPem } = await make();
    writeFileSync(join(draft, 'ca-key.pem'), keyPem.reveal(), { mode: 0o600 });
    writeFileSync(join(dir, 'ca-key.pem'), keyPem.reveal(), { mode: 0o600 });
    await expect(ensureCaFiles(dir, make)).rejects.toMatchObject({ code: 'ERR_CA_STATE' });
  });
});

describe('several processes', () => {
  let programDir: string;
  let program: string;
  beforeAll(() => {
    programDir = mkdtempSync(join(tmpdir(), 'keyturn-open-ca-'));
    program = buildOpenCaProgram(programDir);
  });
  afterAll(() => rmSync(programDir, { recursive: true, force: true }));

  test.each(FULL ? Array.from({ length: 25 }, (_, index) => index) : [0, 1])(
    'that start at once make one CA and all use it (%d)',
    async (round) => {
      const dir = join(tempDir(), 'ca');
      if (round % 2 === 1) mkdirSync(dir, { mode: 0o700 });
      const processes = await Promise.all(
        Array.from({ length: 8 }, () => startOpenCa(program, dir)),
      );
      const answers = (await Promise.all(processes.map((each) => each.go()))).map(
        ({ answer }) => answer,
      );
      const version = await reopen(dir);
      expect(answers.filter((answer) => answer === `made ${version}`)).toHaveLength(1);
      expect(answers.filter((answer) => answer === `opened ${version}`)).toHaveLength(7);
      expect(readdirSync(dir).sort()).toEqual(NAMES);
    },
  );

  test('a SIGKILL before any file operation of the first start leaves a directory that the next start can use', async () => {
    let survived = 0;
    let killed = 0;
    for (let first = 1; survived < 4; first += 4) {
      const dirs = Array.from({ length: 4 }, () => join(tempDir(), 'ca'));
      const results = await Promise.all(
        dirs.map(async (dir, index) => (await startOpenCa(program, dir, first + index)).go()),
      );
      survived = results.filter(({ signal }) => signal === null).length;
      killed += 4 - survived;
      for (const [index, dir] of dirs.entries()) {
        const version = await reopen(dir);
        if (results[index]!.signal === null) expect(results[index]!.answer).toBe(`made ${version}`);
        expect(readdirSync(dir).sort()).toEqual(NAMES);
      }
      expect(first).toBeLessThan(200);
    }
    // A dozen operations check and make directories, four times five write files, eight link and sync, the rest reads the set.
    expect(killed).toBeGreaterThan(50);
  });

  test('a SIGKILL of some while others go on leaves one CA that the others use', async () => {
    for (let round = 0; round < (FULL ? 40 : 4); round += 1) {
      const dir = join(tempDir(), 'ca');
      // Prime steps spread over a start, other ones in each round.
      const processes = await Promise.all(
        [5, 17, 29, 37].map((step) => startOpenCa(program, dir, step + round)),
      );
      const survivors = await Promise.all([startOpenCa(program, dir), startOpenCa(program, dir)]);
      const answers = (
        await Promise.all([...processes, ...survivors].map((each) => each.go()))
      ).map(({ answer }) => answer);
      const version = await reopen(dir);
      expect(answers.slice(4).map((answer) => answer.split(' ')[1])).toEqual([version, version]);
      for (const answer of answers)
        expect(['', `made ${version}`, `opened ${version}`]).toContain(answer);
      expect(readdirSync(dir).sort()).toEqual(NAMES);
    }
  });
});
