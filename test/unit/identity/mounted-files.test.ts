import { beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { AgentError } from '../../../agent/base/errors';
import { writePem } from '../../../agent/base/pem';
import { certificatesPem, isCa, parseCertificate } from '../../../agent/identity/certificate';
import { generateKeyPair, type KeyPair, privateKeyPem } from '../../../agent/identity/keys';
import { parseSpiffeId } from '../../../agent/identity/spiffe-id';
import { acceptMountedFiles, type Svid } from '../../../agent/identity/svid';
import {
  dnsName,
  HOUR_MS,
  issueLeaf,
  type LeafOptions,
  makeTestCa,
  TEST_ID,
  TEST_NOW,
  type TestCa,
  uriAltName,
} from '../../support/certs';
import { mutated, RUNS } from '../../support/mutations';

const id = parseSpiffeId(TEST_ID);
let root: TestCa;
let middle: TestCa;
let key: KeyPair;
beforeAll(async () => {
  root = await makeTestCa();
  middle = await makeTestCa({ parent: root, notAfterAt: TEST_NOW + 12 * HOUR_MS });
  key = await generateKeyPair('ecdsa-p256');
});

const leaf = (options: Partial<LeafOptions> = {}, ca = root) => issueLeaf(ca, { key, ...options });
interface Files {
  readonly cert?: Uint8Array;
  readonly key?: Uint8Array;
  readonly root?: Uint8Array;
}
function accept(files: Files = {}, expectedId = undefined as typeof id | undefined): Svid {
  const certChainPem = files.cert ?? certificatesPem([leaf()]);
  const keyPem = files.key ?? privateKeyPem(key, 'pkcs8');
  return acceptMountedFiles(
    { certChainPem, keyPem, rootCertPem: files.root ?? certificatesPem([root.certificateDer]) },
    expectedId,
    TEST_NOW,
  );
}

/** Key and certificates as one file. */
function acceptBundle(bundle: Uint8Array): Svid {
  return acceptMountedFiles(
    { certChainPem: bundle, keyPem: bundle, rootCertPem: certificatesPem([root.certificateDer]) },
    undefined,
    TEST_NOW,
  );
}

function verdict(call: () => Svid) {
  try {
    return call().warnings;
  } catch (error) {
    if (
      !(error instanceof AgentError) ||
      error.code !== 'ERR_FILE_SOURCE' ||
      error.retry !== 'slow' ||
      !error.hint
    )
      throw error;
    return { field: error.field, rule: error.rule };
  }
}

test('files that belong together become an SVID', () => {
  const der = leaf();
  expect(
    accept({
      cert: certificatesPem([
        der,
        middle.certificateDer,
        root.certificateDer,
        middle.certificateDer,
      ]),
    }),
  ).toMatchObject({
    id,
    key: { algorithm: 'ecdsa-p256', spkiDer: key.spkiDer },
    chainDer: [Buffer.from(der), Buffer.from(middle.certificateDer)],
    bundle: root.bundle,
    notBeforeAt: TEST_NOW - 120_000,
    notAfterAt: TEST_NOW + 24 * HOUR_MS,
    receivedAt: TEST_NOW,
    source: 'file',
    warnings: [],
  });
});

test('they end with what signed them', () => {
  const cert = certificatesPem([leaf({}, middle), middle.certificateDer]);
  expect(accept({ cert })).toMatchObject({
    notAfterAt: TEST_NOW + 12 * HOUR_MS,
    warnings: [expect.stringContaining('outlives what signed it')],
  });
});

test('item 24 a root of another trust domain in root-cert is refused by name, unless that domain is listed', async () => {
  const foreign = await makeTestCa({
    name: 'old',
    extraExtensions: [uriAltName('spiffe://old.example')],
  });
  const files = { rootCertPem: certificatesPem([root.certificateDer, foreign.certificateDer]) };
  const judged = (domains?: readonly string[]) =>
    acceptMountedFiles(
      {
        certChainPem: certificatesPem([leaf(), middle.certificateDer]),
        keyPem: privateKeyPem(key, 'pkcs8'),
        ...files,
      },
      undefined,
      TEST_NOW,
      domains,
    );
  expect(judged()).toMatchObject({
    bundle: root.bundle,
    warnings: [expect.stringContaining('is a root of trust domain old.example')],
  });
  expect(judged(['old.example']).bundle.rootsDer).toHaveLength(2);
});

test.each(['pkcs8', 'traditional'] as const)('a key may be written %s', (format) =>
  expect(verdict(() => accept({ key: privateKeyPem(key, format) }))).toEqual([]),
);

describe('let pass, with a warning', () => {
  test('a chain that does not verify to root-cert, which upstream does not ask for', async () => {
    const other = await makeTestCa({ name: 'other' });
    const svid = accept({ root: certificatesPem([other.certificateDer]) });
    expect(svid.warnings).toEqual([
      expect.stringMatching(
        /^the certificate does not verify to root-cert: chain: must verify to a trusted root/,
      ),
    ]);
    expect(svid.notAfterAt).toBe(TEST_NOW + 24 * HOUR_MS);
  });

  test.each<[string, Partial<LeafOptions>]>([
    ['no SAN', { uris: [] }],
    ['a DNS name alone', { uris: [], otherNames: [dnsName('cart.shop')] }],
    ['two SPIFFE IDs', { uris: [TEST_ID, TEST_ID] }],
    ['a URI that is no SPIFFE ID', { uris: ['https://example.org/'] }],
    ['a trust domain without a path', { uris: ['spiffe://cluster.local'] }],
  ])('%s: then nobody knows who it is', (_, options) => {
    const svid = accept({ cert: certificatesPem([leaf(options)]) });
    expect([svid.id, svid.warnings]).toEqual([
      undefined,
      ['the certificate does not have exactly one SPIFFE ID'],
    ]);
  });

  test('11 a bad block in root-cert', () => {
    const bad = Buffer.from('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n');
    expect(
      accept({ root: Buffer.concat([certificatesPem([root.certificateDer]), bad]) }).warnings,
    ).toEqual([expect.stringMatching(/^skipped: root-cert block 2/)]);
  });
});

describe('refused', () => {
  const text = (value: string) => Buffer.from(value);
  test.each<[string, () => Files, string, string | RegExp]>([
    [
      'an empty certificate file',
      () => ({ cert: text('') }),
      'cert-chain',
      'must hold at least one PEM block',
    ],
    ['an empty key file', () => ({ key: text('') }), 'key', 'must hold at least one PEM block'],
    [
      'an empty root file',
      () => ({ root: text('') }),
      'root-cert',
      'must hold at least one PEM block',
    ],
    [
      'a certificate file half written',
      () => ({ cert: certificatesPem([leaf()]).subarray(0, 300) }),
      'cert-chain',
      'must have an END line',
    ],
    [
      'a key file half written',
      () => ({ key: privateKeyPem(key, 'pkcs8').subarray(0, 100) }),
      'key',
      'must have an END line',
    ],
    [
      'a key among the certificates',
      () => ({ cert: Buffer.concat([certificatesPem([leaf()]), privateKeyPem(key, 'pkcs8')]) }),
      'cert-chain block 2',
      'must be CERTIFICATE, not PRIVATE KEY',
    ],
    ['a certificate as key', () => ({ key: certificatesPem([leaf()]) }), 'key', /not CERTIFICATE$/],
    [
      'two keys',
      () => ({ key: Buffer.concat([privateKeyPem(key, 'pkcs8'), privateKeyPem(key, 'pkcs8')]) }),
      'key',
      'must hold exactly one private key',
    ],
    [
      'a damaged key',
      () => ({ key: writePem('PRIVATE KEY', Buffer.from('3003020100', 'hex')) }),
      'key',
      'must be a valid private key',
    ],
    [
      'an encrypted key',
      () => ({ key: writePem('ENCRYPTED PRIVATE KEY', Buffer.from('3000', 'hex')) }),
      'key',
      'must be PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY, not ENCRYPTED PRIVATE KEY',
    ],
    [
      'E14 a root file of garbage',
      () => ({ root: text('garbage') }),
      'root-cert',
      'must hold at least one PEM block',
    ],
    [
      'a root file with a leaf only',
      () => ({ root: certificatesPem([leaf()]) }),
      'root-cert block 1',
      'must be a CA certificate',
    ],
    [
      'a certificate that may sign',
      () => ({ cert: certificatesPem([leaf({ isCa: true })]) }),
      'leaf',
      'must not be a CA',
    ],
    [
      'an expired certificate',
      () => ({ cert: certificatesPem([leaf({ notAfterAt: TEST_NOW - 1000 })]) }),
      'leaf',
      /^must not be expired/,
    ],
    [
      'a certificate of the future',
      () => ({ cert: certificatesPem([leaf({ notBeforeAt: TEST_NOW + HOUR_MS })]) }),
      'leaf',
      /^must be valid now/,
    ],
    [
      'a chain that does not begin with the leaf',
      () => ({ cert: certificatesPem([middle.certificateDer, leaf()]) }),
      'key',
      'must belong to the first certificate of cert-chain',
    ],
  ])('%s', (_, files, field, rule) => {
    const found = verdict(() => accept(files())) as { field: string; rule: string };
    expect(found.field).toBe(field);
    expect(found.rule).toEqual(typeof rule === 'string' ? rule : expect.stringMatching(rule));
  });

  test('a key of another certificate', async () => {
    const other = await generateKeyPair('ecdsa-p256');
    expect(verdict(() => accept({ key: privateKeyPem(other, 'pkcs8') }))).toEqual({
      field: 'key',
      rule: 'must belong to the first certificate of cert-chain',
    });
  });

  test.each<[string, Partial<LeafOptions>, string]>([
    [
      'another identity',
      { uris: ['spiffe://cluster.local/ns/shop/sa/other'] },
      `must be for ${TEST_ID}, not spiffe://cluster.local/ns/shop/sa/other`,
    ],
    ['no identity', { uris: [] }, `must be for ${TEST_ID}, not nothing`],
    [
      'one identity too many',
      { uris: [TEST_ID, 'spiffe://x/y'] },
      `must be for ${TEST_ID}, not ${TEST_ID}, spiffe://x/y`,
    ],
  ])('%s where one is expected', (_, options, rule) =>
    expect(verdict(() => accept({ cert: certificatesPem([leaf(options)]) }, id))).toEqual({
      field: 'leaf',
      rule,
    }),
  );
});

test('an error never carries the key', () => {
  const bad = writePem('PRIVATE KEY', Buffer.from('canary canary canary canary canary'));
  try {
    accept({ key: bad });
  } catch (error) {
    const everything = JSON.stringify([
      error,
      (error as Error).message,
      (error as Error).stack,
      String((error as Error).cause),
    ]);
    expect(everything).not.toMatch(/canary|Y2FuYXJ5/);
    return;
  }
  throw new Error('it was accepted');
});

test('mutated files are refused with field and rule, or hold a key and a certificate that match', () => {
  const files = {
    cert: certificatesPem([leaf({}, middle), middle.certificateDer]),
    key: privateKeyPem(key, 'pkcs8'),
    root: certificatesPem([root.certificateDer]),
  };
  const which = fc.constantFrom('cert' as const, 'key' as const, 'root' as const);
  fc.assert(
    fc.property(
      which.chain((name) => mutated([files[name]]).map((bytes) => ({ ...files, [name]: bytes }))),
      (changed) => {
        let svid: Svid;
        try {
          svid = accept(changed, id);
        } catch (error) {
          expect(error).toMatchObject({
            code: 'ERR_FILE_SOURCE',
            field: expect.any(String),
            rule: expect.any(String),
          });
          return;
        }
        expect(Buffer.from(svid.key.spkiDer)).toEqual(Buffer.from(key.spkiDer));
        // A root's own signature proves nothing, so a changed one may pass for another root: what signs must still be a CA.
        expect(svid.bundle.rootsDer.map((der) => isCa(parseCertificate(der)))).toEqual([true]);
      },
    ),
    { numRuns: RUNS / 5 },
  );
});

describe('a credential bundle', () => {
  test.each<[string, () => Buffer[]]>([
    [
      'key first, as PodCertificateRequest projects it',
      () => [
        privateKeyPem(key, 'pkcs8'),
        certificatesPem([leaf({}, middle), middle.certificateDer]),
      ],
    ],
    [
      'certificates first',
      () => [
        certificatesPem([leaf({}, middle), middle.certificateDer]),
        privateKeyPem(key, 'traditional'),
      ],
    ],
  ])('with %s is key and chain', (_, parts) => {
    expect(acceptBundle(Buffer.concat(parts()))).toMatchObject({
      id,
      key: { spkiDer: key.spkiDer },
      chainDer: { length: 2 },
    });
  });

  test.each<[string, () => Buffer[], string]>([
    [
      'without a key',
      () => [certificatesPem([leaf()])],
      'must hold exactly one private key, not 0',
    ],
    [
      'with two keys',
      () => [privateKeyPem(key, 'pkcs8'), privateKeyPem(key, 'pkcs8'), certificatesPem([leaf()])],
      'must hold exactly one private key, not 2',
    ],
    [
      'without a certificate',
      () => [privateKeyPem(key, 'pkcs8')],
      'must hold a certificate beside the key',
    ],
  ])('%s is refused', (_, parts, rule) => {
    expect(verdict(() => acceptBundle(Buffer.concat(parts())))).toEqual({
      field: 'credential bundle',
      rule,
    });
  });

  test('of another key is refused as two files would be', async () => {
    const other = privateKeyPem(await generateKeyPair('ecdsa-p256'), 'pkcs8');
    expect(
      verdict(() => acceptBundle(Buffer.concat([other, certificatesPem([leaf()])]))),
    ).toMatchObject({ field: 'key' });
  });
});
