import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { AgentError } from '../../../agent/base/errors';
import { MAX_JOIN_FILE_BYTES, parseJoinFile } from '../../../agent/cli/join-file';
import { loadConfig } from '../../../agent/config/load';
import { keyturn } from '../../support/command-line';
import { testWhere } from '../../support/peers';
import { tempDir } from '../../support/temp-dir';

const ID = 'spiffe://example.org/ns/shop/sa/cart';
const SETTINGS = readFileSync(
  join(__dirname, '../../../scripts/deploy/machine/keyturn.yaml'),
  'utf8',
);
const TARGETS = [
  'etc/keyturn/root-cert.pem',
  'etc/credstore/keyturn.join-token',
  'etc/keyturn/keyturn.yaml',
] as const;

let authority: string;
let good: Readonly<Record<string, unknown>>;

const bundle = (out: string, ...more: readonly string[]) =>
  keyturn(
    [
      'vm',
      'bundle',
      '--ca-dir',
      'ca',
      '--spiffe-id',
      ID,
      '--ca-address',
      'ca.example.org:15012',
      '--out',
      out,
      ...more,
    ],
    {
      cwd: authority,
    },
  );

beforeAll(async () => {
  authority = tempDir();
  await keyturn(['ca', 'init', '--ca-dir', 'ca', '--trust-domain', 'example.org'], {
    cwd: authority,
  });
  await bundle('good.join');
  good = JSON.parse(readFileSync(join(authority, 'good.join'), 'utf8')) as Record<string, unknown>;
});

/** A machine with the package's settings, and a way to let it join. */
function machine(settings: string | undefined = SETTINGS) {
  const root = tempDir();
  mkdirSync(join(root, 'etc/keyturn'), { recursive: true });
  if (settings !== undefined) writeFileSync(join(root, TARGETS[2]), settings);
  const read = (path: string) =>
    existsSync(join(root, path)) ? readFileSync(join(root, path), 'utf8') : undefined;
  return {
    root,
    read,
    files: () => readdirSync(root, { recursive: true }).map(String).sort(),
    join: async (file: unknown, ...more: readonly string[]) => {
      writeFileSync(
        join(root, '..', 'x.join'),
        typeof file === 'string' || Buffer.isBuffer(file) ? file : JSON.stringify(file),
      );
      return keyturn(['vm', 'join', '../x.join', '--root', root, ...more], { cwd: root });
    },
  };
}

describe('keyturn vm bundle', () => {
  test('makes one file of mode 0600 that is all a machine needs', () => {
    expect(statSync(join(authority, 'good.join')).mode & 0o777).toBe(0o600);
    expect(good).toEqual({
      version: 1,
      spiffeId: ID,
      caAddress: 'ca.example.org:15012',
      roots: readFileSync(join(authority, 'ca/root-cert.pem'), 'utf8'),
      token: expect.stringMatching(/^kt1_[\w-]{43}$/),
      expiresAt: expect.stringMatching(/^20\d\d-/),
    });
  });

  test('never shows the token, and says what is next', async () => {
    const { code, stdout, stderr } = await bundle('shown.join', '--ttl', '10m');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/token good until +20.*\(in 10m\)/);
    expect(stdout).toContain('keyturn vm join shown.join');
    expect(stdout).not.toContain('kt1_');
  });

  const tokens = () => readdirSync(join(authority, 'ca/state/tokens')).length;

  test.each([
    [['--out', 'good.join'], 73, 'good.join: the file exists'],
    [
      ['--spiffe-id', 'spiffe://other.org/x'],
      78,
      'is of trust domain other.org, and the authority in',
    ],
    [['--spiffe-id', 'x'], 78, 'flag --spiffe-id'],
    [['--ca-address', 'a:1,b:2'], 78, 'flag --ca-address: must be one address'],
    [['--ca-address', 'a:0'], 78, 'flag --ca-address: "a:0" must have a port other than 0'],
    [['--ttl', '2y'], 78, 'flag --ttl'],
    [['--out', 'missing/x.join'], 73, 'missing/x.join'],
    [['--ca-dir', 'nowhere'], 66, 'nowhere/root-cert.pem: there is no such file'],
  ])('refuses %j, and makes neither file nor token', async (flags, code, words) => {
    const before = [tokens(), readdirSync(authority).length];
    const answer = await bundle('new.join', ...flags);
    expect({ code: answer.code, stderr: answer.stderr }).toEqual({
      code,
      stderr: expect.stringContaining(words),
    });
    expect(existsSync(join(authority, 'new.join'))).toBe(false);
    expect(tokens()).toBe(before[0]);
  });

  const asRoot = testWhere(
    process.getuid?.() === 0,
    'root, to act as the owner of an authority',
    'run the tests as root, e.g. in a container',
  );
  asRoot(
    'as root makes the token as the user that the authority runs as, who could not read it otherwise',
    async () => {
      const cwd = tempDir();
      chmodSync(cwd, 0o755);
      mkdirSync(join(cwd, 'ca'), { mode: 0o700 });
      const { chownSync } = await import('node:fs');
      chownSync(join(cwd, 'ca'), 65_534, 65_534);
      expect(
        await keyturn(['ca', 'init', '--ca-dir', 'ca', '--trust-domain', 'example.org'], { cwd }),
      ).toMatchObject({ code: 0 });
      const args = [
        'vm',
        'bundle',
        '--ca-dir',
        'ca',
        '--spiffe-id',
        ID,
        '--ca-address',
        'a:1',
        '--out',
        'x.join',
      ];
      expect(await keyturn(args, { cwd })).toMatchObject({ code: 0, stderr: '' });
      const made = readdirSync(join(cwd, 'ca'), { recursive: true }).map(String);
      expect(made.filter((name) => statSync(join(cwd, 'ca', name)).uid !== 65_534)).toEqual([]);
      expect(made.some((name) => /^state\/tokens\/./.test(name))).toBe(true);
      expect(statSync(join(cwd, 'x.join'))).toMatchObject({ uid: 0 });
    },
  );
});

describe('keyturn vm join', () => {
  test('writes settings, roots and token, which keyturn run then reads as they were meant', async () => {
    const vm = machine();
    const { code, stdout, stderr } = await vm.join(good);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^identity +spiffe:.*\nauthority +ca.example.org:15012, by 1 root\n/);
    expect(stdout).not.toContain('kt1_');
    expect(vm.read(TARGETS[0])).toBe(good.roots);
    expect(vm.read(TARGETS[1])).toBe(`${good.token}\n`);
    expect(TARGETS.map((path) => (statSync(join(vm.root, path)).mode & 0o777).toString(8))).toEqual(
      ['644', '600', '644'],
    );
    expect(statSync(join(vm.root, 'etc/credstore')).mode & 0o777).toBe(0o700);
    const env = { CREDENTIALS_DIRECTORY: '/run/credentials/keyturn.service' };
    const { config } = await loadConfig({
      flags: { config: join(vm.root, TARGETS[2]) },
      env,
      cwd: '/',
    });
    expect(config).toMatchObject({
      ca: ['istiod'],
      caAddresses: ['ca.example.org:15012'],
      caRoot: '/etc/keyturn/root-cert.pem',
      id: { trustDomain: 'example.org', path: '/ns/shop/sa/cart' },
      token: '/run/credentials/keyturn.service/keyturn.join-token',
      sdsSocket: '/run/keyturn/sds.sock',
      stateDir: '/var/lib/keyturn/state',
    });
  });

  test('keeps what else stands in the settings, with its comments', async () => {
    const vm = machine(`${SETTINGS}\n# ours\nttl: 1h # short\n`);
    await vm.join(good);
    const text = vm.read(TARGETS[2])!;
    for (const line of SETTINGS.split('\n')) expect(text).toContain(line);
    expect(text).toContain('# ours\nttl: 1h # short\n');
  });

  test('a second time brings a new token to the same identity, and nothing else', async () => {
    const vm = machine();
    await vm.join(good);
    const settings = vm.read(TARGETS[2]);
    await bundle('again.join');
    const again = JSON.parse(readFileSync(join(authority, 'again.join'), 'utf8')) as {
      token: string;
    };
    expect(await vm.join(again)).toMatchObject({ code: 0 });
    expect(vm.read(TARGETS[1])).toBe(`${again.token}\n`);
    expect(vm.read(TARGETS[2])).toBe(settings);
  });

  test('of another identity or authority is refused without --replace', async () => {
    const vm = machine();
    await vm.join(good);
    const before = TARGETS.map(vm.read);
    const other = { ...good, spiffeId: 'spiffe://example.org/other' };
    const refused = await vm.join(other);
    expect(refused).toMatchObject({ code: 78, stdout: '' });
    expect(refused.stderr).toContain(
      `spiffe-id: is ${ID} already, and the join file has spiffe://example.org/other`,
    );
    expect(TARGETS.map(vm.read)).toEqual(before);
    expect(await vm.join(other, '--replace')).toMatchObject({ code: 0 });
    expect(vm.read(TARGETS[2])).toContain('spiffe-id: spiffe://example.org/other\n');
  });

  test('needs the package, whose settings it completes', async () => {
    const vm = machine('');
    expect(await vm.join(good)).toMatchObject({ code: 0 });
    const bare = { ...machine(), root: tempDir() };
    writeFileSync(join(bare.root, 'x.join'), JSON.stringify(good));
    const answer = await keyturn(['vm', 'join', 'x.join', '--root', bare.root], { cwd: bare.root });
    expect(answer.code).toBe(78);
    expect(answer.stderr).toContain('install keyturn on this machine first');
    expect(readdirSync(bare.root)).toEqual(['x.join']);
  });

  test.each([
    ['settings that are no YAML', 'a: [', 'is not YAML'],
    ['settings that are a list', '- a', 'must be a mapping'],
    ['settings with a key that is none', 'nonsense: 1', 'is not a setting'],
    [
      'settings that clash with a whole identity',
      'namespace: shop',
      'cannot be given together with',
    ],
  ])('%s stop it', async (_, settings, words) => {
    const vm = machine(settings);
    const answer = await vm.join(good);
    expect({ code: answer.code, stderr: answer.stderr }).toEqual({
      code: 78,
      stderr: expect.stringContaining(words),
    });
    expect(vm.files()).toEqual(['etc', 'etc/keyturn', TARGETS[2]]);
    expect(vm.read(TARGETS[2])).toBe(settings);
  });

  const wrong: [string, (file: Readonly<Record<string, unknown>>) => unknown, string][] = [
    ['no JSON', () => '{"token":"kt1_', 'join file: must be JSON'],
    ['not UTF-8', () => Buffer.from([0x22, 0xff, 0x22]), 'join file: must be JSON'],
    ['an array', (file) => [file], 'join file: must be an object'],
    ['null', () => 'null', 'join file: must be an object'],
    ['of another version', (file) => ({ ...file, version: 2 }), 'join file: version: must be 1'],
    ['something else', () => ({ name: 'x' }), 'join file: name: is an unknown field'],
    [
      'with a member more',
      (file) => ({ ...file, 'ca-dir': '/etc' }),
      'join file: ca-dir: is an unknown field',
    ],
    [
      'with the token for a name',
      ({ token, ...file }) => ({ ...file, [String(token)]: 'token' }),
      'join file: a name of 47 characters: is an unknown field',
    ],
    [
      'with the token in the identity',
      (file) => ({ ...file, spiffeId: String(file.token) }),
      'join file: spiffeId: must be a SPIFFE ID',
    ],
    [
      'with the token in the address',
      (file) => ({ ...file, caAddress: `${file.token},a` }),
      'join file: caAddress: must be host:port',
    ],
    [
      'with the token in the server name',
      (file) => ({ ...file, caServerName: `${file.token} a` }),
      'join file: caServerName: must be a host name',
    ],
    [
      'with the token among the roots',
      (file) => ({ ...file, roots: `${file.token}${file.roots}` }),
      'join file: roots',
    ],
    [
      'with the token in the instant',
      (file) => ({ ...file, expiresAt: file.token }),
      'join file: expiresAt: must be an instant',
    ],
    [
      'with __proto__',
      (file) => JSON.stringify(file).replace('{', '{"__proto__":{"version":1},'),
      'join file: __proto__: is an unknown field',
    ],
    ['without a token', ({ token: _, ...file }) => file, 'join file: token: is missing'],
    [
      'with a number for a token',
      (file) => ({ ...file, token: 1 }),
      'join file: token: must be a string',
    ],
    [
      'with another kind of token',
      (file) => ({ ...file, token: 'eyJhbGciOiJub25lIn0.e30.' }),
      'join file: token: must be a join token',
    ],
    [
      'with a token of two lines',
      (file) => ({ ...file, token: `${file.token}\nx` }),
      'join file: token: must be a join token',
    ],
    [
      'with an identity that is none',
      (file) => ({ ...file, spiffeId: 'spiffe://Example.org/x' }),
      'join file: spiffeId',
    ],
    [
      'with settings in the identity',
      (file) => ({ ...file, spiffeId: `${ID}\nca: builtin` }),
      'join file: spiffeId',
    ],
    [
      'with two addresses',
      (file) => ({ ...file, caAddress: 'a:1,b:2' }),
      'join file: caAddress: must be one address',
    ],
    [
      'with a path for an address',
      (file) => ({ ...file, caAddress: '/run/x' }),
      'join file: caAddress',
    ],
    [
      'with blanks in the server name',
      (file) => ({ ...file, caServerName: 'a b' }),
      'join file: caServerName',
    ],
    ['with no root', (file) => ({ ...file, roots: '' }), 'join file: roots'],
    [
      'with a key among the roots',
      (file) => ({
        ...file,
        roots: `${file.roots}-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n`,
      }),
      'join file: roots block 2: must be CERTIFICATE',
    ],
    [
      'that has expired',
      (file) => ({ ...file, expiresAt: '2020-01-01T00:00:00.000Z' }),
      'join file: expiresAt: was 2020-01-01T00:00:00.000Z, and it is',
    ],
    [
      'with a day that is none',
      (file) => ({ ...file, expiresAt: '2026-13-01T00:00:00.000Z' }),
      'join file: expiresAt: must be an instant',
    ],
    [
      'that is huge',
      (file) => ({ ...file, roots: 'A'.repeat(MAX_JOIN_FILE_BYTES) }),
      'must not be larger than 262144 bytes',
    ],
    ['nested without end', () => '['.repeat(200_000), 'join file: must be JSON'],
  ];
  test.each(wrong)(
    'a join file %s is refused by name, and nothing is written',
    async (_, spoil, words) => {
      const vm = machine();
      const answer = await vm.join(spoil(good));
      expect({ stdout: answer.stdout, stderr: answer.stderr }).toEqual({
        stdout: '',
        stderr: expect.stringContaining(words),
      });
      expect([65, 66, 78]).toContain(answer.code);
      expect(answer.stderr).not.toContain('kt1_');
      expect(answer.stderr).not.toContain(String(good.token).slice(4, 20));
      expect(vm.files()).toEqual(['etc', 'etc/keyturn', TARGETS[2]]);
      expect(vm.read(TARGETS[2])).toBe(SETTINGS);
    },
  );

  test('what stands in the way of one file leaves all of them as they were', async () => {
    for (const [index, path] of TARGETS.entries()) {
      const vm = machine();
      if (index === 2) {
        writeFileSync(join(vm.root, 'elsewhere.yaml'), SETTINGS);
        const { rmSync } = await import('node:fs');
        rmSync(join(vm.root, path));
        symlinkSync(join(vm.root, 'elsewhere.yaml'), join(vm.root, path));
      } else {
        mkdirSync(join(vm.root, path), { recursive: true });
      }
      const before = vm.files();
      const answer = await vm.join(good);
      expect(answer).toMatchObject({ code: 73, stdout: '' });
      expect(answer.stderr).toContain('must be a regular file or missing');
      expect(vm.files().filter((name) => name !== 'etc/credstore')).toEqual(
        before.filter((name) => name !== 'etc/credstore'),
      );
      expect(vm.read(TARGETS[2])).toBe(SETTINGS);
    }
  });

  test('10,000 join files that were changed anywhere are read as they were meant, or refused by an error of ours', () => {
    const bytes = Buffer.from(JSON.stringify(good));
    const change = fc.tuple(
      fc.nat(bytes.length - 1),
      fc.nat(255),
      fc.constantFrom('set', 'cut', 'insert', 'end'),
    );
    let [taken, refused] = [0, 0];
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 3 }), (changes) => {
        let text = bytes;
        for (const [at, octet, kind] of changes) {
          const [head, tail] = [text.subarray(0, at), text.subarray(at)];
          if (kind === 'set') text = Buffer.concat([head, Buffer.of(octet), tail.subarray(1)]);
          if (kind === 'cut') text = Buffer.concat([head, tail.subarray(1 + octet)]);
          if (kind === 'insert') text = Buffer.concat([head, Buffer.of(octet), tail]);
          if (kind === 'end') text = head;
        }
        try {
          const file = parseJoinFile(text);
          expect(file.spiffeId).toMatch(/^spiffe:\/\/[a-z0-9._-]+\/[\w./-]+$/);
          expect(file.caAddress).toMatch(/^[\w.-]+:\d+$/);
          expect(file.token.reveal()).toMatch(/^kt1_[\w-]{43}$/);
          taken += 1;
        } catch (caught) {
          if (!(caught instanceof AgentError)) throw caught;
          expect(caught.message).not.toContain(String(good.token).slice(4, 20));
          refused += 1;
        }
      }),
      { numRuns: 10_000 },
    );
    expect(taken).toBeGreaterThan(10);
    expect(refused).toBeGreaterThan(5_000);
  });
});
