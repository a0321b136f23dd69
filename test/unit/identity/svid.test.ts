import { beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { contextTag, derElement, derInteger, derSequence, derTime } from '../../../agent/base/der';
import { AgentError } from '../../../agent/base/errors';
import { isSelfIssued, parseCertificate } from '../../../agent/identity/certificate';
import { EXTENSION, encodeExtension, PURPOSE } from '../../../agent/identity/extensions';
import { generateKeyPair, type KeyPair } from '../../../agent/identity/keys';
import { encodeName } from '../../../agent/identity/name';
import { parseSpiffeId } from '../../../agent/identity/spiffe-id';
import { acceptIssuedChain, type Expected, type Svid } from '../../../agent/identity/svid';
import { createTrustBundle, type TrustBundle } from '../../../agent/identity/trust-bundle';
import {
  dnsName,
  HOUR_MS,
  ipName,
  issueLeaf,
  type LeafOptions,
  makeKey,
  makeTestCa,
  TEST_ID,
  TEST_NOW,
  type TestCa,
  type TestCaOptions,
} from '../../support/certs';
import { cpuMs } from '../../support/load';
import { mutated, RUNS } from '../../support/mutations';

const MINUTE_MS = 60_000;
let root: TestCa;
let middle: TestCa;
let stranger: TestCa;
let key: KeyPair;
let otherKey: KeyPair;

beforeAll(async () => {
  root = await makeTestCa();
  middle = await makeTestCa({ parent: root });
  stranger = await makeTestCa({ name: 'stranger' });
  key = await generateKeyPair('ecdsa-p256');
  otherKey = await generateKeyPair('ecdsa-p256');
});

const expected = (options: Partial<Expected> = {}): Expected => ({
  id: parseSpiffeId(TEST_ID),
  key,
  source: 'test',
  ...options,
});
const accept = (
  reply: readonly Uint8Array[],
  trust: TrustBundle = root.bundle,
  now = TEST_NOW,
  options: Partial<Expected> = {},
): Svid => acceptIssuedChain(expected(options), reply, trust, now);
const leaf = (options: Partial<LeafOptions> = {}, ca: TestCa = root) =>
  issueLeaf(ca, { key, ...options });
const hex = (ders: readonly Uint8Array[]) => ders.map((der) => Buffer.from(der).toString('hex'));

/** What the gate said: the warnings of what it let pass, or field and rule of a refusal, which always is ERR_CA_RESPONSE, slow, with a hint. */
function verdict(
  call: () => Svid,
): readonly string[] | { readonly field: string | undefined; readonly rule: string | undefined } {
  try {
    return call().warnings;
  } catch (error) {
    // Plain conditions: expect() would take most of the time of ten thousand mutations.
    if (
      !(error instanceof AgentError) ||
      error.code !== 'ERR_CA_RESPONSE' ||
      error.retry !== 'slow' ||
      !error.hint ||
      !error.cause
    )
      throw error;
    return { field: error.field, rule: error.rule };
  }
}

test('a right reply becomes an SVID with the facts of its leaf and the bundle that judged it', () => {
  const der = leaf({ serial: Buffer.from('0100ff', 'hex') });
  expect(accept([der])).toEqual({
    id: parseSpiffeId(TEST_ID),
    key,
    chainDer: [der],
    bundle: root.bundle,
    serial: '0100ff',
    notBeforeAt: TEST_NOW - 2 * MINUTE_MS,
    notAfterAt: TEST_NOW + 24 * HOUR_MS,
    receivedAt: TEST_NOW,
    source: 'test',
    warnings: [],
  });
});

test('the message says what was tried and what happened', () =>
  expect(() => accept([leaf({ uris: ['spiffe://cluster.local/ns/shop/sa/other'] })])).toThrow(
    `accept certificate from test: leaf: must be for ${TEST_ID}, not spiffe://cluster.local/ns/shop/sa/other`,
  ));

describe('refused', () => {
  const many = Array.from({ length: 257 }, () => Buffer.of(0x30, 0));
  test.each<[string, () => readonly Uint8Array[], string, string | RegExp]>([
    [
      'C1 a leaf for another key',
      () => [leaf({ key: otherKey })],
      'leaf',
      'must be for the key of the request',
    ],
    [
      'C2 another service account',
      () => [leaf({ uris: ['spiffe://cluster.local/ns/shop/sa/other'] })],
      'leaf',
      /^must be for spiffe:.*, not spiffe:.*other$/,
    ],
    [
      'C2 another trust domain',
      () => [leaf({ uris: ['spiffe://other/ns/shop/sa/cart'] })],
      'leaf',
      /^must be for/,
    ],
    [
      'C2 an upper-case scheme',
      () => [leaf({ uris: [TEST_ID.replace('spiffe', 'SPIFFE')] })],
      'leaf',
      /^must be for/,
    ],
    ['C2 a trailing slash', () => [leaf({ uris: [`${TEST_ID}/`] })], 'leaf', /^must be for/],
    [
      'C2 one URI too many',
      () => [leaf({ uris: [TEST_ID, 'spiffe://cluster.local/ns/shop/sa/other'] })],
      'leaf',
      'must have exactly one URI SAN, not 2',
    ],
    [
      'C2 the same URI twice',
      () => [leaf({ uris: [TEST_ID, TEST_ID] })],
      'leaf',
      'must have exactly one URI SAN, not 2',
    ],
    [
      'C2 a DNS name only',
      () => [leaf({ uris: [], otherNames: [dnsName('cart.shop')] })],
      'leaf',
      'must have exactly one URI SAN, not 0',
    ],
    ['C2 no SAN', () => [leaf({ uris: [] })], 'leaf', 'must have exactly one URI SAN, not 0'],
    ['C3 CA:TRUE', () => [leaf({ isCa: true })], 'leaf', 'must not be a CA'],
    [
      'C3 keyCertSign',
      () => [leaf({ keyUsage: ['digitalSignature', 'keyCertSign'] })],
      'leaf',
      'must not have key usage keyCertSign or cRLSign',
    ],
    [
      'C3 cRLSign',
      () => [leaf({ keyUsage: ['digitalSignature', 'cRLSign'] })],
      'leaf',
      'must not have key usage keyCertSign or cRLSign',
    ],
    [
      'C3 key usage without digitalSignature',
      () => [leaf({ keyUsage: ['keyEncipherment'] })],
      'leaf',
      'must have key usage digitalSignature',
    ],
    [
      'C3 purposes without serverAuth',
      () => [leaf({ purposes: [PURPOSE.clientAuth] })],
      'leaf',
      'must have extended key usage serverAuth',
    ],
    [
      'C3 purposes without clientAuth',
      () => [leaf({ purposes: [PURPOSE.serverAuth] })],
      'leaf',
      'must have extended key usage clientAuth',
    ],
    [
      'C3 any purpose, which is neither',
      () => [leaf({ purposes: [PURPOSE.any] })],
      'leaf',
      'must have extended key usage serverAuth',
    ],
    [
      'C4 a missing intermediate',
      () => [leaf({}, middle)],
      'chain',
      /^must verify to a trusted root: no trusted root or intermediate is named "O=cluster.local, CN=intermediate"$/,
    ],
    [
      'C4 two leaves for our key',
      () => [leaf(), leaf()],
      'reply',
      'must hold only one certificate for our key',
    ],
    [
      'C5 a root that is not in the bundle',
      () => [leaf({}, stranger), stranger.certificateDer],
      'chain',
      /^must verify to a trusted root/,
    ],
    [
      'C5 a signature of another key under the right name',
      () => [leaf({ signer: stranger.privateKey })],
      'root "O=cluster.local, CN=root"',
      'must have signed what names it as issuer',
    ],
    [
      'C6 an expired leaf',
      () => [leaf({ notBeforeAt: TEST_NOW - 2 * HOUR_MS, notAfterAt: TEST_NOW })],
      'leaf',
      'must not be expired: it ended at 2026-01-01T00:00:00.000Z',
    ],
    [
      'C6 not valid for 61 s',
      () => [leaf({ notBeforeAt: TEST_NOW + 61_000 })],
      'leaf',
      'must be valid now: it begins at 2026-01-01T00:01:01.000Z',
    ],
    [
      'C6 not valid for 5 minutes',
      () => [leaf({ notBeforeAt: TEST_NOW + 5 * MINUTE_MS })],
      'leaf',
      /^must be valid now/,
    ],
    [
      'C6 not valid for an hour',
      () => [leaf({ notBeforeAt: TEST_NOW + HOUR_MS })],
      'leaf',
      /^must be valid now/,
    ],
    [
      'C6 notBefore after notAfter',
      () => [leaf({ notBeforeAt: TEST_NOW + HOUR_MS, notAfterAt: TEST_NOW + MINUTE_MS })],
      'leaf',
      'must end after it begins',
    ],
    [
      'C6 a validity of nothing',
      () => [leaf({ notBeforeAt: TEST_NOW, notAfterAt: TEST_NOW })],
      'leaf',
      'must end after it begins',
    ],
    ['C11 an empty reply', () => [], 'reply', 'must hold at least one certificate'],
    ['C11 an empty certificate', () => [Buffer.alloc(0)], 'leaf', 'must not be empty'],
    [
      'C11 only the root',
      () => [root.certificateDer],
      'leaf',
      'must be for the key of the request',
    ],
    [
      'C12 a thousand certificates',
      () => Array(1000).fill(root.certificateDer),
      'reply',
      'must not hold more than 256 certificates',
    ],
    [
      'C12 more certificates than the cap',
      () => many,
      'reply',
      'must not hold more than 256 certificates',
    ],
    [
      'C12 ten megabytes',
      () => [Buffer.alloc(10 * 1024 * 1024)],
      'reply',
      'must not be longer than 1048576 bytes',
    ],
    [
      'C12 one certificate of 64 KiB and a byte',
      () => [Buffer.alloc(65_537, 0x30)],
      'leaf',
      'must not be longer than 65536 bytes',
    ],
    [
      'C14 a negative serial',
      () => [leaf({ serial: Buffer.of(0x80) })],
      'leaf serial number',
      'must not be negative',
    ],
    [
      'C14 serial zero',
      () => [leaf({ serial: Buffer.of(0) })],
      'leaf',
      'must have a positive serial number',
    ],
    [
      'C14 SHA-1',
      () => [leaf({ signature: 'ECDSA-SHA1' })],
      'root "O=cluster.local, CN=root"',
      'must sign with ECDSA or RSA and SHA-256, SHA-384 or SHA-512, not ECDSA-SHA1',
    ],
    [
      'trailing bytes',
      () => [Buffer.concat([leaf(), Buffer.of(0)])],
      'leaf',
      'must not have trailing bytes',
    ],
    [
      'a repeated extension',
      () => [
        leaf({
          extraExtensions: [encodeExtension(EXTENSION.keyUsage, true, Buffer.of(3, 2, 7, 0x80))],
        }),
      ],
      'leaf extensions',
      'must not repeat 2.5.29.15',
    ],
    [
      'an unknown critical extension',
      () => [leaf({ extraExtensions: [encodeExtension('1.2.3.4', true, derInteger(1))] })],
      'leaf',
      'must not have unknown critical extensions: 1.2.3.4',
    ],
  ])('%s', (_, reply, field, rule) => {
    const found = verdict(() => accept(reply())) as { field: string; rule: string };
    expect(found.field).toBe(field);
    expect(found.rule).toEqual(typeof rule === 'string' ? rule : expect.stringMatching(rule));
  });

  test('C5 a root that the reply brings along is not trusted for it', () => {
    const trust = createTrustBundle([root.certificateDer]);
    const evil = leaf({}, stranger);
    expect(
      verdict(() => accept([evil, stranger.certificateDer, root.certificateDer], trust)),
    ).toMatchObject({ field: 'chain' });
  });

  test('C12 what a megabyte of certificates costs is bounded', () => {
    const filler = Array.from({ length: 255 }, (_, index) => Buffer.alloc(4000, index));
    const startedAt = cpuMs();
    expect(accept([leaf(), ...filler]).warnings).toHaveLength(255);
    expect(cpuMs() - startedAt).toBeLessThan(1000);
  });

  test.each(['1024', '2047'])('C14 an issuer of RSA %s', async (bits) => {
    const weak = await makeTestCa({ privateKey: makeKey('rsa', Number(bits)) });
    expect(verdict(() => accept([leaf({}, weak)], weak.bundle))).toEqual({
      field: 'root "O=cluster.local, CN=root"',
      rule: 'key must be RSA of at least 2048 bits',
    });
  });

  test.each(['RSA-MD5', 'RSA-SHA1'] as const)('C14 a signature of %s', async (signature) => {
    const ca = await makeTestCa({ algorithm: 'rsa-2048' });
    expect(verdict(() => accept([leaf({ signature }, ca)], ca.bundle))).toMatchObject({
      rule: expect.stringContaining(`not ${signature}`),
    });
  });

  test('an issuer with a key of Ed25519, which Envoy does not take', async () => {
    const ca = await makeTestCa({ privateKey: makeKey('ed25519') });
    expect(verdict(() => accept([leaf({}, ca)], ca.bundle))).toMatchObject({
      rule: 'key must be an ECDSA or RSA key',
    });
  });
});

describe('let pass, with a warning', () => {
  const day = 24 * HOUR_MS;
  test.each<[string, Partial<LeafOptions>, readonly unknown[]]>([
    [
      'C3 no key usage, as istio-csr may issue',
      { keyUsage: undefined },
      ['the leaf has no key usage'],
    ],
    [
      'C3 a key usage that is not critical',
      { keyUsageCritical: false },
      ['the leaf has a key usage that is not critical'],
    ],
    ['C3 no extended key usage', { purposes: undefined }, ['the leaf has no extended key usage']],
    [
      'C2 other names beside our own',
      { otherNames: [dnsName('a'), dnsName('b'), ipName(1, 2, 3, 4)] },
      ['the leaf has other names beside its SPIFFE ID: dns, ip'],
    ],
    [
      'a SAN that is not critical beside an empty subject',
      { sanCritical: false },
      ['the leaf has an empty subject and a SAN that is not critical'],
    ],
    [
      'a SAN that is not critical beside a subject',
      { sanCritical: false, subjectDer: encodeName([['O', 'x']]) },
      [],
    ],
    [
      'C6 not valid for a second',
      { notBeforeAt: TEST_NOW + 1000 },
      ["the leaf is not valid before 2026-01-01T00:00:01.000Z: the clock here is behind the CA's"],
    ],
    [
      'C6 not valid for a minute',
      { notBeforeAt: TEST_NOW + MINUTE_MS },
      [expect.stringContaining('is not valid before')],
    ],
    ['C7 a life of ten seconds', { notBeforeAt: TEST_NOW, notAfterAt: TEST_NOW + 10_000 }, []],
    [
      'C7 a life longer than asked for',
      { notBeforeAt: TEST_NOW, notAfterAt: TEST_NOW + 30 * day },
      ['the leaf lives for 720h, longer than 168h'],
    ],
    [
      'a signature of keyEncipherment too',
      { keyUsage: ['digitalSignature', 'keyEncipherment'] },
      [],
    ],
    [
      'more purposes',
      { purposes: [PURPOSE.serverAuth, PURPOSE.clientAuth, '1.3.6.1.5.5.7.3.4'] },
      [],
    ],
    [
      'an unknown extension that is not critical',
      { extraExtensions: [encodeExtension('1.2.3.4', false, derInteger(1))] },
      [],
    ],
  ])('%s', (_, options, warnings) =>
    expect(
      verdict(() => accept([leaf(options)], root.bundle, TEST_NOW, { maxTtlMs: 7 * day })),
    ).toEqual(warnings),
  );

  test.each<[string, TestCaOptions, TestCaOptions, string]>([
    ['a root', { keyUsage: undefined }, {}, 'root'],
    ['an intermediate', {}, { keyUsage: undefined }, 'intermediate'],
  ])(
    'field E14 %s without key usage, which RFC 5280 allows and X509-SVID does not',
    async (_, top, between, name) => {
      const ca = await makeTestCa({ parent: await makeTestCa(top), ...between });
      expect(verdict(() => accept([leaf({}, ca), ...ca.intermediatesDer], ca.bundle))).toEqual([
        `CA certificates without key usage keyCertSign, which strict peers refuse (X509-SVID section 4.3): O=cluster.local, CN=${name}`,
      ]);
    },
  );

  test('F9 a leaf until the year 9999 ends with its root', () =>
    expect(accept([leaf({ notAfter: derTime(Date.parse('9999-12-31T23:59:59Z')) })])).toMatchObject(
      {
        notAfterAt: parseCertificate(root.certificateDer).notAfterAt,
        warnings: [expect.stringMatching(/^the leaf outlives what signed it, which ends at 2035-/)],
      },
    ));
});

describe('C4 the chain that is served', () => {
  const served = (reply: readonly Uint8Array[], trust = root.bundle) => {
    const { chainDer, warnings } = accept(reply, trust);
    return { chain: hex(chainDer), warnings };
  };

  test('is put in order, whatever the order of the reply, and never holds a root', async () => {
    const deep = await makeTestCa({ parent: middle, name: 'deep' });
    const own = leaf({}, deep);
    const want = { chain: hex([own, deep.certificateDer, middle.certificateDer]), warnings: [] };
    const parts = [own, deep.certificateDer, middle.certificateDer, root.certificateDer];
    for (const order of permutations(parts)) expect(served(order)).toEqual(want);
  });

  test('drops duplicates', () => {
    const own = leaf({}, middle);
    expect(served([own, own, middle.certificateDer, middle.certificateDer])).toEqual({
      chain: hex([own, middle.certificateDer]),
      warnings: [],
    });
  });

  test('drops strangers, with a warning', async () => {
    const other = await makeTestCa({ parent: stranger, name: 'their intermediate' });
    const own = leaf();
    expect(served([own, other.certificateDer])).toEqual({
      chain: hex([own]),
      warnings: [
        'the reply holds a certificate outside the chain of the leaf: O=cluster.local, CN=their intermediate',
      ],
    });
  });

  test.each<[string, TestCaOptions]>([
    ['of another name', { name: 'alias' }],
    ['that may not sign', { name: 'root', isCa: false }],
  ])('drops a certificate for the key of an issuer %s, with a warning', async (_, options) => {
    const other = await makeTestCa({ privateKey: root.privateKey, parent: stranger, ...options });
    const own = leaf({}, middle);
    expect(served([own, middle.certificateDer, other.certificateDer])).toEqual({
      chain: hex([own, middle.certificateDer]),
      warnings: [
        `the reply holds a certificate outside the chain of the leaf: O=cluster.local, CN=${options.name}`,
      ],
    });
  });

  test('drops a root that has an authority key identifier and no subject key identifier', async () => {
    const keyId = derSequence(derElement(contextTag(0, 'primitive'), Buffer.alloc(20, 1)));
    const top = await makeTestCa({
      noKeyIds: true,
      extraExtensions: [encodeExtension(EXTENSION.authorityKeyId, false, keyId)],
    });
    const own = leaf({}, top);
    expect(served([own, top.certificateDer], top.bundle)).toEqual({
      chain: hex([own]),
      warnings: [],
    });
  });

  test('drops damaged certificates, with a warning', () => {
    const own = leaf();
    expect(served([own, Buffer.from('3003', 'hex')])).toEqual({
      chain: hex([own]),
      warnings: ['the reply holds a damaged certificate: reply certificate 2: is cut off'],
    });
  });

  test('drops a root that nobody here trusts', () => {
    const own = leaf();
    expect(served([own, stranger.certificateDer])).toEqual({ chain: hex([own]), warnings: [] });
  });

  test('H3 keeps a cross-signed intermediate, for peers that trust only the old root', async () => {
    const next = await makeTestCa({ name: 'next' });
    const cross = await makeTestCa({ name: 'next', privateKey: next.privateKey, parent: root });
    const own = leaf({}, next);
    const both = createTrustBundle([root.certificateDer, next.certificateDer]);
    for (const trust of [root.bundle, next.bundle, both]) {
      expect(served([own, cross.certificateDer], trust)).toEqual({
        chain: hex([own, cross.certificateDer]),
        warnings: [],
      });
    }
  });

  test('leaves out an intermediate that has expired', async () => {
    const next = await makeTestCa({ name: 'next' });
    const cross = await makeTestCa({
      name: 'next',
      privateKey: next.privateKey,
      parent: root,
      notAfterAt: TEST_NOW - HOUR_MS,
    });
    const own = leaf({}, next);
    expect(served([own, cross.certificateDer], next.bundle)).toEqual({
      chain: hex([own]),
      warnings: [],
    });
  });
});

test.each([
  ['intermediate', 2, 'the leaf outlives what signed it, which ends at 2026-01-01T02:00:00.000Z'],
  ['root', 3, 'the leaf outlives what signed it, which ends at 2026-01-01T03:00:00.000Z'],
] as const)('C8 a leaf that outlives its %s ends with it', async (which, hours, warning) => {
  const notAfterAt = TEST_NOW + hours * HOUR_MS;
  const top = await makeTestCa(which === 'root' ? { notAfterAt } : {});
  const below = await makeTestCa({
    parent: top,
    notAfterAt: which === 'root' ? TEST_NOW + 9 * HOUR_MS : notAfterAt,
  });
  expect(accept([leaf({}, below), below.certificateDer], top.bundle)).toMatchObject({
    notAfterAt,
    warnings: [warning],
  });
});

describe('C13 many roots', () => {
  test('of one name, 200 of them and no key identifiers to tell them apart, are tried in bounded time, with a warning', async () => {
    const roots = await Promise.all(
      Array.from({ length: 200 }, () => makeTestCa({ noKeyIds: true })),
    );
    const trust = createTrustBundle(roots.map(({ certificateDer }) => certificateDer));
    for (const ca of [roots[0]!, roots[199]!]) {
      const startedAt = cpuMs();
      const { warnings } = accept(
        [issueLeaf(ca, { key }), ...roots.map(({ certificateDer }) => certificateDer)],
        trust,
      );
      expect(warnings).toEqual([
        'the trust bundle holds 200 roots: with more than 32 some verifiers give up',
      ]);
      expect(cpuMs() - startedAt).toBeLessThan(2000);
    }
  });

  test('that are the same count once', () =>
    expect(
      accept([leaf()], createTrustBundle(Array(40).fill(root.certificateDer))).warnings,
    ).toEqual([]));

  test('H6 of which one has expired do no harm', async () => {
    const expired = await makeTestCa({ notAfterAt: TEST_NOW - HOUR_MS });
    const trust = createTrustBundle([expired.certificateDer, root.certificateDer]);
    expect(accept([leaf()], trust).warnings).toEqual([]);
    expect(verdict(() => accept([leaf({}, expired)], trust))).toMatchObject({
      rule: expect.stringMatching(/expired|signed/),
    });
  });

  test('H7 of one key, renewed, are either', async () => {
    const renewed = await makeTestCa({
      privateKey: root.privateKey,
      notAfterAt: TEST_NOW + 99 * HOUR_MS,
    });
    for (const trust of [
      root.bundle,
      renewed.bundle,
      createTrustBundle([root.certificateDer, renewed.certificateDer]),
    ]) {
      expect(accept([leaf()], trust).warnings).toEqual([]);
    }
  });
});

test('a leaf of each kind of key under a CA of each kind is accepted', async () => {
  for (const algorithm of ['ecdsa-p256', 'ecdsa-p384', 'rsa-2048'] as const) {
    const ca = await makeTestCa({ algorithm });
    const own = await generateKeyPair(algorithm);
    expect(
      accept([issueLeaf(ca, { key: own })], ca.bundle, TEST_NOW, { key: own }).warnings,
    ).toEqual([]);
  }
  const p521 = await makeTestCa({ privateKey: makeKey('ec', 'P-521') });
  expect(accept([leaf({ signature: 'ECDSA-SHA512' }, p521)], p521.bundle).warnings).toEqual([]);
});

test('no mutation of a leaf is accepted', () => {
  const own = leaf({}, middle);
  fc.assert(
    fc.property(mutated([own]), (der) => {
      const found = verdict(() => accept([der, middle.certificateDer]));
      if (Buffer.compare(der, own) === 0) return expect(found).toEqual([]);
      expect(found).toEqual({ field: expect.any(String), rule: expect.any(String) });
    }),
    { numRuns: RUNS },
  );
});

test('a damaged copy of a trusted root goes to no peer', () => {
  const damaged = Buffer.from(root.certificateDer);
  damaged[damaged.length - 1]! ^= 1;
  const own = leaf({}, middle);
  expect(hex(accept([own, middle.certificateDer, damaged]).chainDer)).toEqual(
    hex([own, middle.certificateDer]),
  );
});

test('mutations of the rest of a reply are refused, or leave the same chain', () => {
  const own = leaf({}, middle);
  const whole = hex([own, middle.certificateDer]);
  fc.assert(
    fc.property(
      mutated([middle.certificateDer]),
      mutated([root.certificateDer]),
      (intermediate, extra) => {
        let chain: string[];
        try {
          chain = hex(accept([own, intermediate, extra]).chainDer);
        } catch (error) {
          expect(error).toMatchObject({
            code: 'ERR_CA_RESPONSE',
            field: expect.any(String),
            rule: expect.any(String),
          });
          return;
        }
        // A copy of the root that names another key as its issuer's cannot be told from one that is cross-signed by a root of the same name.
        const last =
          chain.length > whole.length
            ? parseCertificate(Buffer.from(chain.at(-1)!, 'hex'))
            : undefined;
        const [issuer, subject] = [last?.authorityKeyId, last?.subjectKeyId];
        const crossed =
          last && isSelfIssued(last) && issuer && subject && Buffer.compare(issuer, subject) !== 0;
        expect(crossed ? chain.slice(0, -1) : chain).toEqual(whole);
      },
    ),
    { numRuns: RUNS },
  );
});

test('a reply of random bytes is refused', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 5 }), (reply) => {
      expect(verdict(() => accept(reply))).toEqual({
        field: expect.any(String),
        rule: expect.any(String),
      });
    }),
    { numRuns: RUNS / 10 },
  );
});

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length <= 1) return [[...items]];
  return items.flatMap((item, index) =>
    permutations(items.filter((_, other) => other !== index)).map((rest) => [item, ...rest]),
  );
}
