import { execFileSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { appendFileSync, chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import {
  type Authority,
  type AuthorityOptions,
  openAuthority,
} from '../../../agent/authority/authority';
import { assertPrivate } from '../../../agent/authority/directory/private-files';
import { certificatesPem, parseCertificate } from '../../../agent/identity/certificate';
import { directEngine } from '../../../agent/identity/direct-engine';
import { encodeUriNames } from '../../../agent/identity/extensions';
import { KEY_ALGORITHMS } from '../../../agent/identity/keys';
import { parseSpiffeId } from '../../../agent/identity/spiffe-id';
import { acceptIssuedChain } from '../../../agent/identity/svid';
import { writeCaDir } from '../../support/ca-dir';
import {
  HOUR_MS,
  makeKey,
  makeTestCa,
  TEST_ID,
  TEST_NOW,
  type TestCa,
  uriAltName,
  uriConstraints,
} from '../../support/certs';
import { tempDir } from '../../support/temp-dir';
import { TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';

const ID = parseSpiffeId(TEST_ID);
const DAY_MS = 24 * HOUR_MS;

const open = (dir: string, options: Partial<AuthorityOptions> = {}) =>
  openAuthority(
    {
      dir,
      trustDomain: 'cluster.local',
      rootAlgorithm: 'ecdsa-p256',
      engine: directEngine,
      ...options,
    },
    testDeps({ clock: new TestClock() }),
  );

/** One certificate of the authority, as the gate takes it. */
async function issue(authority: Authority) {
  const key = await directEngine.generateKeyPair('ecdsa-p256');
  const reply = await authority.sign(await directEngine.createCsr(key, ID), ID, 3_600);
  return acceptIssuedChain(
    { id: ID, key, source: 'builtin' },
    reply,
    authority.trust.value,
    TEST_NOW,
  );
}

async function expectUsable(dir: string): Promise<Awaited<ReturnType<typeof issue>>> {
  const authority = await open(dir);
  try {
    return await issue(authority);
  } finally {
    await authority.close();
  }
}

/** A directory with a good intermediate under a good root, before `spoil` has its way. */
async function caDir(
  spoil: (dir: string, root: TestCa, signer: TestCa) => Promise<void> | void = () => undefined,
): Promise<string> {
  const dir = join(tempDir(), 'ca');
  const root = await makeTestCa();
  const signer = await makeTestCa({ parent: root });
  writeCaDir(dir, { signer, roots: [root] });
  await spoil(dir, root, signer);
  return dir;
}

function replaceBy(path: string, maker: 'mkdir' | 'mkfifo'): void {
  rmSync(path);
  execFileSync(maker, [path]);
}

test('a CA that was made while the clock was wrong says what to do', async () => {
  const opened = async (signer: TestCa) => {
    const dir = join(tempDir(), 'ca');
    writeCaDir(dir, { signer, roots: [signer] });
    return open(dir).then(
      () => 'opened',
      (caught: { hint?: string }) => caught.hint?.replaceAll(dir, 'DIR'),
    );
  };
  const [made, over] = [Date.parse('1970-01-01T00:00:00Z'), Date.parse('1979-12-30T00:00:00Z')];
  expect(await opened(await makeTestCa({ notBeforeAt: made, notAfterAt: over }))).toMatch(
    /^it was created when the clock showed 1970-01-01T00:00:00.000Z; if that was wrong, .* move DIR away, start again/,
  );
  const ahead = TEST_NOW + 365 * DAY_MS;
  expect(
    await opened(await makeTestCa({ notBeforeAt: ahead, notAfterAt: ahead + DAY_MS })),
  ).toMatch(
    /^it was created when the clock showed 2027.*, and now it shows 2026.*: set the clock; if it was wrong then, move DIR away/,
  );
});

test('field A2b a signer that an old and a new root certified signs to the end of the longer path', async () => {
  const old = await makeTestCa({ name: 'old', notAfterAt: TEST_NOW + HOUR_MS });
  const next = await makeTestCa({ name: 'next' });
  const byOld = await makeTestCa({ name: 'signer', parent: old, notAfterAt: TEST_NOW + HOUR_MS });
  const byNext = await makeTestCa({ name: 'signer', privateKey: byOld.privateKey, parent: next });
  for (const signer of [byOld, byNext]) {
    const dir = join(tempDir(), 'ca');
    writeCaDir(dir, { signer, chain: [byOld, byNext], roots: [old, next] });
    const authority = await open(dir);
    expect(authority.describe().notAfterAt).toBeGreaterThan(TEST_NOW + 1_000 * DAY_MS);
    const key = await directEngine.generateKeyPair('ecdsa-p256');
    const reply = await authority.sign(await directEngine.createCsr(key, ID), ID, 24 * 3_600);
    expect(parseCertificate(reply[0]!).notAfterAt).toBe(TEST_NOW + DAY_MS);
    // Peers that know the old root only are reached as well.
    expect(
      reply
        .slice(1)
        .map((der) => parseCertificate(der).issuer)
        .sort(),
    ).toEqual([old, next].map(issuerName).sort());
    await authority.close();
  }
});

describe('item 24 a root of another trust domain', () => {
  const made = async () => {
    const dir = join(tempDir(), 'ca');
    const [root, foreign] = [
      await makeTestCa(),
      await makeTestCa({ name: 'old', extraExtensions: [uriAltName('spiffe://old.example')] }),
    ];
    writeCaDir(dir, { signer: root, roots: [root, foreign] });
    return dir;
  };

  test('in root-cert.pem is refused by name, with the setting that allows it', async () => {
    await expect(open(await made())).rejects.toMatchObject({
      code: 'ERR_CA_STATE',
      message: expect.stringMatching(
        /root-cert\.pem block 2: is a root of trust domain old\.example \(.*CN=old\), not of cluster\.local/,
      ),
    });
  });

  test('is taken where it is listed, and only then', async () => {
    const authority = await open(await made(), { rootTrustDomains: ['old.example'] });
    expect(authority.trust.value.rootsDer).toHaveLength(2);
    await authority.close();
    await expect(open(await made(), { rootTrustDomains: ['older.example'] })).rejects.toMatchObject(
      { code: 'ERR_CA_STATE' },
    );
  });

  test('names it in any case of letters, and beside other names', async () => {
    for (const uri of ['SPIFFE://old.example', 'spiffe://OLD.example/']) {
      const dir = join(tempDir(), 'ca');
      const root = await makeTestCa();
      const foreign = await makeTestCa({ name: 'old', extraExtensions: [uriAltName(uri)] });
      writeCaDir(dir, { signer: root, roots: [root, foreign] });
      await expect(open(dir)).rejects.toMatchObject({
        message: expect.stringContaining('trust domain old.example'),
      });
    }
  });
});

const issuerName = (ca: TestCa) => parseCertificate(ca.certificateDer).subject;

describe('a self-signed root', () => {
  test.each(KEY_ALGORITHMS)(
    'with a key of %s is made, is its own and only root, and signs',
    async (rootAlgorithm) => {
      const authority = await open(join(tempDir(), 'ca'), { rootAlgorithm });
      const svid = await issue(authority);
      await authority.close();
      expect(authority.describe()).toMatchObject({
        subject: 'O=cluster.local',
        keyAlgorithm: rootAlgorithm,
        lastError: undefined,
      });
      expect(svid.chainDer).toHaveLength(1);
      const root = parseCertificate(authority.trust.value.rootsDer[0]!);
      expect(root).toMatchObject({
        subject: 'O=cluster.local',
        notBeforeAt: TEST_NOW - 600_000,
        notAfterAt: TEST_NOW - 600_000 + 3_650 * DAY_MS,
        basicConstraints: { ca: true, pathLength: undefined },
        keyUsage: { usages: ['keyCertSign', 'cRLSign'], critical: true },
        subjectAltName: { names: [{ kind: 'uri', value: 'spiffe://cluster.local' }] },
      });
    },
  );

  test('of the longest trust domain has a name of 64 characters and its whole SPIFFE ID', async () => {
    const trustDomain = `${'a'.repeat(251)}.org`;
    const authority = await open(join(tempDir(), 'ca'), { trustDomain });
    await authority.close();
    const root = parseCertificate(authority.trust.value.rootsDer[0]!);
    expect(root.subject).toBe(`O=${'a'.repeat(64)}`);
    expect(root.subjectAltName?.names).toEqual([{ kind: 'uri', value: `spiffe://${trustDomain}` }]);
  });

  test('that is there already is used whatever algorithm is asked for', async () => {
    const dir = join(tempDir(), 'ca');
    const first = await open(dir);
    const second = await open(dir, { rootAlgorithm: 'rsa-2048' });
    await Promise.all([first.close(), second.close()]);
    expect(second.describe().keyAlgorithm).toBe('ecdsa-p256');
    expect(second.trust.value).toEqual(first.trust.value);
  });
});

describe('a plugged-in CA', () => {
  test('signs with its intermediates behind the leaf and without the root, though cert-chain.pem ends with it as upstream makes it', async () => {
    const root = await makeTestCa();
    const middle = await makeTestCa({ parent: root, name: 'middle' });
    const signer = await makeTestCa({ parent: middle, algorithm: 'rsa-4096' });
    const dir = join(tempDir(), 'ca');
    writeCaDir(dir, { signer, chain: [signer, middle, root], roots: [root] });
    const svid = await expectUsable(dir);
    expect(svid.chainDer.slice(1)).toEqual([signer.certificateDer, middle.certificateDer]);
    expect(svid.warnings).toEqual([]);
  });

  test('may leave the signer out of cert-chain.pem', async () => {
    const root = await makeTestCa();
    const middle = await makeTestCa({ parent: root, name: 'middle' });
    const signer = await makeTestCa({ parent: middle });
    const dir = join(tempDir(), 'ca');
    writeCaDir(dir, { signer, chain: [middle], roots: [root] });
    expect((await expectUsable(dir)).chainDer.slice(1)).toEqual([
      signer.certificateDer,
      middle.certificateDer,
    ]);
  });

  test('may be a root with an empty cert-chain.pem', async () => {
    const root = await makeTestCa({ algorithm: 'ecdsa-p384' });
    const dir = join(tempDir(), 'ca');
    writeCaDir(dir, { signer: root, chain: [], roots: [root] });
    expect((await expectUsable(dir)).chainDer).toHaveLength(1);
  });

  test('H3 that is a root and cross-signed by another goes out with the cross-signed certificate', async () => {
    const old = await makeTestCa({ name: 'one name' });
    const next = await makeTestCa({ name: 'one name' });
    const cross = await makeTestCa({ name: 'one name', parent: old, privateKey: next.privateKey });
    const dir = join(tempDir(), 'ca');
    writeCaDir(dir, { signer: next, chain: [cross], roots: [old, next] });
    expect((await expectUsable(dir)).chainDer.slice(1)).toEqual([cross.certificateDer]);
    writeCaDir(dir, { roots: [old] });
    expect((await expectUsable(dir)).chainDer.slice(1)).toEqual([cross.certificateDer]);
  });

  test('H7 whose root was issued again with the same key verifies to either', async () => {
    const root = await makeTestCa();
    const again = await makeTestCa({ privateKey: root.privateKey });
    const signer = await makeTestCa({ parent: root });
    for (const roots of [[root], [again], [root, again]]) {
      const dir = join(tempDir(), 'ca');
      writeCaDir(dir, { signer, roots });
      await expectUsable(dir);
    }
  });

  test('H6 is used though another root in root-cert.pem has expired', async () => {
    const expired = await makeTestCa({ name: 'expired', notAfterAt: TEST_NOW - HOUR_MS });
    await expectUsable(await caDir((dir, root) => writeCaDir(dir, { roots: [expired, root] })));
  });

  test.each([
    ['ec', 'openssl ecparam -name prime256v1 -genkey -out ca-key.pem'],
    ['rsa', 'openssl genrsa -traditional -out ca-key.pem 3072'],
  ])(
    'made with the openssl command (%s) is used, and its certificates pass openssl verify -x509_strict',
    async (_, genkey) => {
      const dir = tempDir();
      const script = `set -e
      openssl req -x509 -newkey rsa:4096 -nodes -keyout root-key.pem -out root-cert.pem -days 3650 -subj "/O=Example/CN=Root CA" -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
      ${genkey} 2>/dev/null
      chmod 600 ca-key.pem
      openssl req -new -key ca-key.pem -subj "/O=Example/CN=Mesh CA" -out ca.csr
      printf 'basicConstraints=critical,CA:TRUE,pathlen:0\\nkeyUsage=critical,keyCertSign,cRLSign\\nsubjectKeyIdentifier=hash\\nauthorityKeyIdentifier=keyid\\nsubjectAltName=URI:spiffe://cluster.local\\n' > ext
      openssl x509 -req -in ca.csr -CA root-cert.pem -CAkey root-key.pem -CAcreateserial -days 365 -extfile ext -out ca-cert.pem 2>/dev/null
      cat ca-cert.pem root-cert.pem > cert-chain.pem`;
      execFileSync('sh', ['-c', script], { cwd: dir });
      const deps = testDeps();
      const authority = await openAuthority(
        { dir, trustDomain: 'cluster.local', rootAlgorithm: 'ecdsa-p256', engine: directEngine },
        deps,
      );
      const key = await directEngine.generateKeyPair('ecdsa-p256');
      const reply = await authority.sign(await directEngine.createCsr(key, ID), ID, 3_600);
      await authority.close();
      writeFileSync(join(dir, 'leaf.pem'), certificatesPem(reply.slice(0, 1)));
      writeFileSync(join(dir, 'above.pem'), certificatesPem(reply.slice(1)));
      const verify = [
        'verify',
        '-x509_strict',
        '-purpose',
        'sslserver',
        '-CAfile',
        'root-cert.pem',
        '-untrusted',
        'above.pem',
        'leaf.pem',
      ];
      expect(execFileSync('openssl', verify, { cwd: dir, encoding: 'utf8' })).toBe(
        'leaf.pem: OK\n',
      );
      expect(() =>
        acceptIssuedChain(
          { id: ID, key, source: 'builtin' },
          reply,
          authority.trust.value,
          Date.now(),
        ),
      ).not.toThrow();
    },
  );
});

describe('B2 a CA directory is refused where', () => {
  const day = { notBeforeAt: TEST_NOW - DAY_MS, notAfterAt: TEST_NOW + DAY_MS };
  test.each<
    [
      string,
      string | undefined,
      RegExp,
      (dir: string, root: TestCa, signer: TestCa) => Promise<void> | void,
    ]
  >([
    [
      'the key is another one',
      'ca-key.pem',
      /must be the key of ca-cert.pem/,
      (dir) => writeCaDir(dir, { key: makeKey('ec', 'prime256v1') }),
    ],
    [
      'the key is of another kind',
      'ca-key.pem',
      /must be the key of ca-cert.pem/,
      (dir) => writeCaDir(dir, { key: makeKey('rsa', 2048) }),
    ],
    [
      'the key is garbage',
      'ca-key.pem',
      /PEM/,
      (dir) => writeFileSync(join(dir, 'ca-key.pem'), 'garbage'),
    ],
    ['the key is empty', 'ca-key.pem', /PEM/, (dir) => writeFileSync(join(dir, 'ca-key.pem'), '')],
    [
      'the key is encrypted',
      'ca-key.pem',
      /must be PRIVATE KEY.*not ENCRYPTED PRIVATE KEY/,
      (dir) => {
        const cipher = { cipher: 'aes-256-cbc', passphrase: 'x' };
        const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
        writeFileSync(
          join(dir, 'ca-key.pem'),
          privateKey.export({ type: 'pkcs8', format: 'pem', ...cipher }),
        );
      },
    ],
    [
      'the key is weak',
      'ca-key.pem',
      /must be ECDSA P-256 or P-384, or RSA of 2048/,
      async (dir, root) =>
        writeCaDir(dir, {
          signer: await makeTestCa({ parent: root, privateKey: makeKey('rsa', 1024) }),
        }),
    ],
    [
      'the certificate is garbage',
      'ca-cert.pem',
      /PEM/,
      (dir) => writeFileSync(join(dir, 'ca-cert.pem'), 'garbage'),
    ],
    [
      'the certificate is empty',
      'ca-cert.pem',
      /PEM/,
      (dir) => writeFileSync(join(dir, 'ca-cert.pem'), ''),
    ],
    [
      'there are two certificates in one',
      'ca-cert.pem',
      /must hold one certificate/,
      (dir) => appendFileSync(join(dir, 'ca-cert.pem'), readFileSync(join(dir, 'root-cert.pem'))),
    ],
    [
      'the certificate is not a CA',
      'ca-cert.pem',
      /CA:TRUE/,
      async (dir, root) =>
        writeCaDir(dir, { signer: await makeTestCa({ parent: root, isCa: false }) }),
    ],
    [
      'the certificate may not sign',
      'ca-cert.pem',
      /keyCertSign/,
      async (dir, root) =>
        writeCaDir(dir, { signer: await makeTestCa({ parent: root, keyUsage: ['cRLSign'] }) }),
    ],
    [
      'field E14 the certificate has no key usage',
      'ca-cert.pem',
      /keyCertSign/,
      async (dir, root) =>
        writeCaDir(dir, { signer: await makeTestCa({ parent: root, keyUsage: undefined }) }),
    ],
    [
      'field E14 a CA above it has no key usage',
      'intermediate "O=cluster.local, CN=intermediate"',
      /keyCertSign/,
      async (dir, root) =>
        writeCaDir(dir, {
          signer: await makeTestCa({
            name: 'signer',
            parent: await makeTestCa({ parent: root, keyUsage: undefined }),
          }),
        }),
    ],
    [
      'the signer has expired',
      undefined,
      /must not be expired/,
      async (dir, root) =>
        writeCaDir(dir, {
          signer: await makeTestCa({ parent: root, ...day, notAfterAt: TEST_NOW - 1_000 }),
        }),
    ],
    [
      'the signer is not valid yet',
      undefined,
      /must be valid now/,
      async (dir, root) =>
        writeCaDir(dir, {
          signer: await makeTestCa({ parent: root, ...day, notBeforeAt: TEST_NOW + HOUR_MS }),
        }),
    ],
    [
      'the root has expired',
      undefined,
      /must not be expired/,
      async (dir) => {
        const root = await makeTestCa({ ...day, notAfterAt: TEST_NOW - 1_000 });
        writeCaDir(dir, { signer: await makeTestCa({ parent: root }), roots: [root] });
      },
    ],
    [
      'the root is another one',
      undefined,
      /must have signed what names it as issuer/,
      async (dir) => writeCaDir(dir, { roots: [await makeTestCa()] }),
    ],
    [
      'the root is of another name',
      undefined,
      /no trusted root/,
      async (dir) => writeCaDir(dir, { roots: [await makeTestCa({ name: 'other' })] }),
    ],
    [
      'an intermediate is missing',
      undefined,
      /no trusted root or intermediate/,
      async (dir, root) => {
        const middle = await makeTestCa({ parent: root, name: 'middle' });
        const signer = await makeTestCa({ parent: middle });
        writeCaDir(dir, { signer, chain: [signer] });
      },
    ],
    [
      'the path is longer than an issuer above allows',
      undefined,
      /must not have more than 0 intermediates/,
      async (dir, root) => {
        const middle = await makeTestCa({ parent: root, name: 'middle', pathLength: 0 });
        writeCaDir(dir, { signer: await makeTestCa({ parent: middle }) });
      },
    ],
    [
      'name constraints exclude the trust domain',
      undefined,
      /must not exclude spiffe:\/\/cluster.local/,
      async (dir, root) =>
        writeCaDir(dir, {
          signer: await makeTestCa({
            parent: root,
            extraExtensions: [uriConstraints([], ['cluster.local'])],
          }),
        }),
    ],
    [
      'the CA is of another trust domain',
      'ca-cert.pem',
      /must be of trust domain cluster.local, not other.org/,
      async (dir, root) => {
        writeCaDir(dir, {
          signer: await makeTestCa({
            parent: root,
            extraExtensions: [encodeUriNames(['spiffe://other.org'], false)],
          }),
        });
      },
    ],
    [
      'the signature is SHA-1',
      undefined,
      /not ECDSA-SHA1/,
      async (dir, root) =>
        writeCaDir(dir, { signer: await makeTestCa({ parent: root, signature: 'ECDSA-SHA1' }) }),
    ],
    [
      'the chain is garbage',
      'cert-chain.pem',
      /PEM/,
      (dir) => writeFileSync(join(dir, 'cert-chain.pem'), 'garbage'),
    ],
    [
      'the chain holds a key',
      'cert-chain.pem',
      /must be CERTIFICATE, not PRIVATE KEY/,
      (dir) => writeFileSync(join(dir, 'cert-chain.pem'), readFileSync(join(dir, 'ca-key.pem'))),
    ],
    [
      'E14 the roots are garbage',
      'root-cert.pem',
      /PEM/,
      (dir) => writeFileSync(join(dir, 'root-cert.pem'), 'garbage'),
    ],
    [
      'the roots are empty',
      'root-cert.pem',
      /PEM/,
      (dir) => writeFileSync(join(dir, 'root-cert.pem'), ''),
    ],
    [
      'H8 one root of two is damaged',
      'root-cert.pem',
      /must hold good CA certificates only/,
      (dir) =>
        appendFileSync(
          join(dir, 'root-cert.pem'),
          '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n',
        ),
    ],
    [
      'H8 one root of two is a leaf',
      'root-cert.pem',
      /must be a CA certificate/,
      async (dir, root) => writeCaDir(dir, { roots: [root, await makeTestCa({ isCa: false })] }),
    ],
    [
      'a file is a directory',
      undefined,
      /must be a regular file/,
      (dir) => replaceBy(join(dir, 'cert-chain.pem'), 'mkdir'),
    ],
    [
      'a file is a pipe',
      undefined,
      /must be a regular file/,
      (dir) => replaceBy(join(dir, 'root-cert.pem'), 'mkfifo'),
    ],
    [
      'a file is huge',
      undefined,
      /must not be larger than 1048576 bytes/,
      (dir) => writeFileSync(join(dir, 'root-cert.pem'), Buffer.alloc(1 << 21, '\n')),
    ],
    [
      'B1 the key is 0644',
      undefined,
      /ca-key.pem: mode 0644 is open to others/,
      (dir) => chmodSync(join(dir, 'ca-key.pem'), 0o644),
    ],
    [
      'B1 the key is 0640',
      undefined,
      /ca-key.pem: mode 0640 is open to others/,
      (dir) => chmodSync(join(dir, 'ca-key.pem'), 0o640),
    ],
    [
      'the directory is 0755',
      undefined,
      /ca: mode 0755 is open to others/,
      (dir) => chmodSync(dir, 0o755),
    ],
    [
      'the directory is 0710',
      undefined,
      /ca: mode 0710 is open to others/,
      (dir) => chmodSync(dir, 0o710),
    ],
    [
      'others may write the roots',
      undefined,
      /root-cert.pem: mode 0666 is open to others/,
      (dir) => chmodSync(join(dir, 'root-cert.pem'), 0o666),
    ],
  ])('%s', async (_, field, rule, spoil) => {
    const dir = await caDir(spoil);
    const error = await open(dir).then(
      (authority) => authority.close(),
      (caught) => caught,
    );
    expect(error).toMatchObject({
      code: 'ERR_CA_STATE',
      retry: 'never',
      message: expect.stringMatching(rule),
      hint: expect.any(String),
    });
    expect(error.message).toContain(dir);
    if (field) expect(error.field).toBe(field);
  });

  test('nothing is wrong with the directory that these tests spoil', async () => {
    const svid = await expectUsable(await caDir());
    expect(svid.chainDer).toHaveLength(2);
  });
});

describe('who may get at a file', () => {
  test.each<[Parameters<typeof assertPrivate>[0], number, number, boolean, number, string]>([
    ['key', 0o100600, 1000, false, 1000, 'fine'],
    ['key', 0o100400, 0, false, 1000, 'fine'],
    ['key', 0o100600, 1000, false, 0, 'open p: it belongs to user 1000, and keyturn runs as 0'],
    [
      'key',
      0o100600,
      1001,
      false,
      1000,
      'open p: it belongs to user 1001, and keyturn runs as 1000',
    ],
    ['key', 0o100440, 0, false, 1000, 'open p: mode 0440 is open to others'],
    ['key', 0o100440, 0, true, 1000, 'fine'],
    ['key', 0o100444, 0, true, 1000, 'open p: mode 0444 is open to others'],
    ['key', 0o100460, 0, true, 1000, 'open p: mode 0460 is open to others'],
    ['certificate', 0o100644, 0, false, 1000, 'fine'],
    ['certificate', 0o100664, 1000, false, 1000, 'open p: mode 0664 is open to others'],
    [
      'certificate',
      0o100644,
      1001,
      false,
      1000,
      'open p: it belongs to user 1001, and keyturn runs as 1000',
    ],
    ['directory', 0o042700, 1000, false, 1000, 'fine'],
    ['directory', 0o040701, 1000, false, 1000, 'open p: mode 0701 is open to others'],
  ])(
    '%s of mode %o and user %d, on a read-only mount: %j, seen by %d: %s',
    (kind, mode, uid, readOnly, us, want) => {
      const outcome = () => {
        try {
          assertPrivate(kind, 'p', { mode, uid }, readOnly, us);
          return 'fine';
        } catch (caught) {
          return (caught as Error).message;
        }
      };
      expect(outcome()).toBe(want);
    },
  );
});
