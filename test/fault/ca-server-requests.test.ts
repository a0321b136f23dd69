import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { BinaryWriter } from '@bufbuild/protobuf/wire';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  contextTag,
  derBitString,
  derBoolean,
  derElement,
  derInteger,
  derOid,
  derSequence,
  TAG,
} from '../../agent/base/der';
import { writePem } from '../../agent/base/pem';
import { parseCertificates, uriNames } from '../../agent/identity/certificate';
import {
  EXTENSION,
  encodeBasicConstraints,
  encodeExtension,
  encodeKeyUsage,
  encodePurposes,
  encodeUriNames,
  PURPOSE,
} from '../../agent/identity/extensions';
import { encodeName } from '../../agent/identity/name';
import {
  type CallOptions,
  type CaTestClient,
  type CaWorld,
  issueIdentity,
  makeRequest,
  startCaWorld,
} from '../support/ca-server';
import {
  dnsName,
  emailName,
  ipName,
  makeCsr,
  makeKey,
  signDer,
  spkiOf,
  TEST_ID,
  uriConstraints,
} from '../support/certs';
import { underLoad } from '../support/load';
import { rocaModulus } from '../support/weak-rsa';

const INVALID_ARGUMENT = 3;
const PERMISSION_DENIED = 7;
const RESOURCE_EXHAUSTED = 8;
const UNAUTHENTICATED = 16;

let world: CaWorld;
let client: CaTestClient;
let key: KeyObject;

beforeAll(async () => {
  world = await startCaWorld();
  client = world.client(await issueIdentity(world.authority));
  key = makeKey('ec', 'prime256v1');
});
afterAll(() => world.close());

/** What every case has in common: the stated status, no certificate, and a server that goes on. */
async function expectRefused(
  csr: string | Uint8Array,
  code: number | readonly number[],
  options: CallOptions = {},
  withinMs = 1_000,
): Promise<string> {
  const before = world.issued();
  const startedAt = performance.now();
  const outcome = await client.create(csr, options);
  expect(performance.now() - startedAt).toBeLessThan(underLoad(withinMs));
  expect({
    ...outcome,
    code: [code].flat().includes(outcome.code) ? 'as stated' : outcome.code,
  }).toMatchObject({
    code: 'as stated',
    chain: [],
  });
  expect(world.issued()).toBe(before);
  return outcome.details;
}

const pem = (der: Uint8Array, label = 'CERTIFICATE REQUEST') => writePem(label, der).toString();
const csrWith = (options: Partial<Parameters<typeof makeCsr>[0]>) =>
  makeCsr({ privateKey: key, ...options });
const san = (...names: Uint8Array[]) =>
  encodeExtension(EXTENSION.subjectAltName, true, derSequence(...names));
const uriName = (uri: string) => derElement(contextTag(6, 'primitive'), Buffer.from(uri, 'latin1'));
const OTHER_ID = 'spiffe://cluster.local/ns/shop/sa/admin';

test('the caller of these cases gets a certificate for a request that is right', async () => {
  expect(await client.create((await makeRequest()).csrDer)).toMatchObject({ code: 0 });
});

describe('A1 a request that is no CSR is INVALID_ARGUMENT', () => {
  test.each<[string, () => string]>([
    ['blank', () => ' '],
    ['text', () => 'please'],
    ['under another label', () => pem(csrWith({}), 'CERTIFICATE')],
    ['under the label of a key', () => pem(csrWith({}), 'PRIVATE KEY')],
    [
      'base64 garbage',
      () => '-----BEGIN CERTIFICATE REQUEST-----\n@@@@\n-----END CERTIFICATE REQUEST-----\n',
    ],
    ['DER garbage', () => pem(Buffer.from('garbage'))],
    [
      'an empty block',
      () => '-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n',
    ],
  ])('%s', async (_, csr) => void (await expectRefused(csr(), INVALID_ARGUMENT)));

  test('nothing', async () =>
    void (await expectRefused('', INVALID_ARGUMENT, { raw: new Uint8Array() })));
});

describe('A2 a CSR with more or less than itself is INVALID_ARGUMENT', () => {
  test.each<[string, () => string]>([
    ['cut', () => pem(csrWith({}).subarray(0, -1))],
    ['cut to its head', () => pem(csrWith({}).subarray(0, 4))],
    ['with a byte behind', () => pem(Buffer.concat([csrWith({}), Buffer.of(0)]))],
    ['with a second CSR behind', () => pem(Buffer.concat([csrWith({}), csrWith({})]))],
    ['with a second block', () => pem(csrWith({})) + pem(csrWith({}))],
    ['with text behind', () => `${pem(csrWith({}))}and more`],
    ['with text before', () => `Subject: x\n${pem(csrWith({}))}`],
  ])('%s', async (_, csr) => void (await expectRefused(csr(), INVALID_ARGUMENT)));
});

describe('A3 what is not DER is INVALID_ARGUMENT, fast', () => {
  const deep = () => {
    let der: Uint8Array = Buffer.alloc(0);
    for (let depth = 0; depth < 10_000 && der.length < 40_000; depth += 1)
      der = derElement(TAG.sequence, der);
    return der;
  };
  test.each<[string, () => Uint8Array]>([
    [
      'an indefinite length',
      () => Buffer.concat([Buffer.of(0x30, 0x80), csrWith({}), Buffer.of(0, 0)]),
    ],
    [
      'a length in more octets than it needs',
      () => {
        const der = csrWith({});
        return Buffer.concat([Buffer.of(0x30, 0x83, 0, der[2]!, der[3]!), der.subarray(4)]);
      },
    ],
    ['ten thousand levels', deep],
  ])('%s', async (_, der) => void (await expectRefused(pem(der()), INVALID_ARGUMENT, {}, 500)));
});

test.each([64 * 1024 + 1, 1024 * 1024, 4 * 1024 * 1024 + 1])(
  'A4 a request of %i bytes is refused before it is read',
  async (size) => {
    await expectRefused('x'.repeat(size), [RESOURCE_EXHAUSTED, INVALID_ARGUMENT], {}, 2_000);
  },
);

describe('A5 PEM that would be slow to read is refused fast', () => {
  test.each([
    ['856 kB of BEGIN', '-----BEGIN '.repeat(77_818)],
    ['60 kB of BEGIN', '-----BEGIN '.repeat(5_450)],
    ['60 kB of whole boundaries', '-----BEGIN CERTIFICATE REQUEST-----\n'.repeat(1_650)],
    ['60 kB of dashes', '-'.repeat(60_000)],
    ['60 kB of END', `-----BEGIN X-----\n${'-----END '.repeat(6_500)}-----`],
  ])(
    '%s',
    async (_, csr) =>
      void (await expectRefused(csr, [RESOURCE_EXHAUSTED, INVALID_ARGUMENT], {}, 500)),
  );
});

describe('A6 a CSR that its own key did not sign is INVALID_ARGUMENT', () => {
  test.each<[string, () => Uint8Array]>([
    ['one bit of the signature', () => flip(csrWith({}), -1)],
    ['one bit of the key', () => flip(csrWith({}), 60)],
    ['another key', () => csrWith({ signer: makeKey('ec', 'prime256v1') })],
    [
      'no signature',
      () => {
        const [info] = [
          derSequence(derInteger(0), encodeName([]), spkiOf(key), derElement(contextTag(0))),
        ];
        return derSequence(
          info,
          derSequence(derOid('1.2.840.10045.4.3.2')),
          derBitString(Buffer.alloc(0)),
        );
      },
    ],
  ])('%s', async (_, der) => void (await expectRefused(der(), INVALID_ARGUMENT)));
});

function flip(der: Uint8Array, at: number): Uint8Array {
  const copy = Buffer.from(der);
  copy[at < 0 ? copy.length + at : at]! ^= 1;
  return copy;
}

test.each(['RSA-MD5', 'RSA-SHA1'] as const)(
  'A7 a CSR signed with %s is INVALID_ARGUMENT',
  async (signature) => {
    await expectRefused(makeCsr({ privateKey: makeKey('rsa', 2048), signature }), INVALID_ARGUMENT);
  },
);
test('A7 a CSR signed with ECDSA-SHA1 is INVALID_ARGUMENT', async () => {
  await expectRefused(csrWith({ signature: 'ECDSA-SHA1' }), INVALID_ARGUMENT);
});

test.each([512, 1024, 2047])('A8 RSA of %i bits is INVALID_ARGUMENT', async (bits) => {
  await expectRefused(makeCsr({ privateKey: makeKey('rsa', bits) }), INVALID_ARGUMENT);
});

describe('A9 RSA keys that cost more than they give are INVALID_ARGUMENT, fast', () => {
  const rsaSpki = (modulus: Uint8Array, exponent: Uint8Array) =>
    derSequence(
      derSequence(derOid('1.2.840.113549.1.1.1'), derElement(TAG.null)),
      derBitString(derSequence(derInteger(modulus), derInteger(exponent))),
    );
  const odd = (octets: number) => Buffer.alloc(octets, 0xab).fill(0xc1, 0, 1);
  test.each<[string, Uint8Array]>([
    ['16384 bits', rsaSpki(odd(2_048), Buffer.of(1, 0, 1))],
    ['an exponent of 1', rsaSpki(odd(256), Buffer.of(1))],
    ['an exponent of 3', rsaSpki(odd(256), Buffer.of(3))],
    ['an even exponent', rsaSpki(odd(256), Buffer.of(1, 0, 0))],
    ['an exponent of 2048 bits', rsaSpki(odd(256), odd(256))],
    ['an even modulus', rsaSpki(Buffer.alloc(256, 0xaa), Buffer.of(1, 0, 1))],
  ])(
    '%s',
    async (_, spkiDer) =>
      void (await expectRefused(
        makeCsr({ privateKey: makeKey('rsa', 2048), spkiDer }),
        INVALID_ARGUMENT,
        {},
        500,
      )),
  );

  test('A10 a modulus that anybody can factor', async () => {
    const spkiDer = rsaSpki(rocaModulus(), Buffer.of(1, 0, 1));
    expect(
      await expectRefused(makeCsr({ privateKey: makeKey('rsa', 2048), spkiDer }), INVALID_ARGUMENT),
    ).toContain('ROCA');
  });
});

describe('A11 curves that are not ours are INVALID_ARGUMENT', () => {
  test.each(['secp256k1', 'secp224r1', 'brainpoolP256r1', 'sect283k1'])('%s', async (curve) => {
    await expectRefused(
      makeCsr({ privateKey: makeKey('ec', curve), signature: 'ECDSA-SHA256' }),
      INVALID_ARGUMENT,
    );
  });
  test('parameters that are spelt out', async () => {
    const privateKey = generateKeyPairSync('ec', {
      namedCurve: 'prime256v1',
      paramEncoding: 'explicit',
    }).privateKey;
    await expectRefused(makeCsr({ privateKey, signature: 'ECDSA-SHA256' }), INVALID_ARGUMENT);
  });
});

describe('A12 points that are not plain points of their curve are INVALID_ARGUMENT', () => {
  const spki = (point: Uint8Array) =>
    derSequence(
      derSequence(derOid('1.2.840.10045.2.1'), derOid('1.2.840.10045.3.1.7')),
      derBitString(point),
    );
  const point = () => Buffer.from(spkiOf(key).subarray(-65));
  test.each<[string, () => Uint8Array]>([
    ['at infinity', () => Buffer.of(0)],
    ['off the curve', () => flip(point(), -1)],
    [
      'compressed',
      () => Buffer.concat([Buffer.of(2 + (point()[64]! & 1)), point().subarray(1, 33)]),
    ],
    ['hybrid', () => Buffer.concat([Buffer.of(6 + (point()[64]! & 1)), point().subarray(1)])],
    ['cut', () => point().subarray(0, 64)],
    ['of zeros', () => Buffer.concat([Buffer.of(4), Buffer.alloc(64)])],
    ['beyond the field', () => Buffer.concat([Buffer.of(4), Buffer.alloc(64, 0xff)])],
  ])(
    '%s',
    async (_, bytes) =>
      void (await expectRefused(csrWith({ spkiDer: spki(bytes()) }), INVALID_ARGUMENT)),
  );
});

test.each(['ed25519', 'ed448', 'x25519'] as const)(
  'A13 a key of %s is INVALID_ARGUMENT',
  async (kind) => {
    const spkiDer = generateKeyPairSync(kind as 'ed25519').publicKey.export({
      type: 'spki',
      format: 'der',
    });
    await expectRefused(csrWith({ spkiDer }), INVALID_ARGUMENT);
  },
);
test('A13 a DSA key is INVALID_ARGUMENT', async () => {
  const { publicKey } = generateKeyPairSync('dsa', { modulusLength: 2048, divisorLength: 256 });
  await expectRefused(
    csrWith({ spkiDer: publicKey.export({ type: 'spki', format: 'der' }) }),
    INVALID_ARGUMENT,
  );
});
test('A13 a request signed with Ed25519 is INVALID_ARGUMENT', async () => {
  const info = derSequence(
    derInteger(0),
    encodeName([]),
    spkiOf(makeKey('ed25519')),
    derElement(contextTag(0)),
  );
  await expectRefused(signDer(info, makeKey('ed25519'), 'Ed25519'), INVALID_ARGUMENT);
});

test.each([
  ['another service account', OTHER_ID],
  ['another namespace', 'spiffe://cluster.local/ns/other/sa/cart'],
  ['more than the own', `${TEST_ID}/admin`],
])('A14 a CSR for %s is PERMISSION_DENIED', async (_, uri) => {
  await expectRefused(csrWith({ extensions: [encodeUriNames([uri], true)] }), PERMISSION_DENIED);
  expect(world.audit().at(-1)).toMatchObject({
    decision: 'refused',
    caller: TEST_ID,
    requested: uri,
    status: 'PERMISSION_DENIED',
  });
});

test('A15 a CSR for another trust domain, or an alias of ours, is PERMISSION_DENIED', async () => {
  const aliased = await startCaWorld({ aliases: ['old.local'] });
  try {
    const caller = aliased.client(await issueIdentity(aliased.authority));
    for (const trustDomain of ['old.local', 'evil.local', 'cluster.local.evil']) {
      const csr = csrWith({
        extensions: [encodeUriNames([`spiffe://${trustDomain}/ns/shop/sa/cart`], true)],
      });
      expect(await caller.create(csr)).toMatchObject({ code: PERMISSION_DENIED });
    }
    expect(aliased.issued()).toBe(0);
  } finally {
    await aliased.close();
  }
});

test.each([
  ['one right and one wrong', [TEST_ID, OTHER_ID]],
  ['the right one twice', [TEST_ID, TEST_ID]],
  ['many', Array.from({ length: 900 }, () => TEST_ID)],
])('A16 a CSR with two URIs, %s, is INVALID_ARGUMENT', async (_, uris) => {
  await expectRefused(csrWith({ extensions: [encodeUriNames(uris, true)] }), INVALID_ARGUMENT);
});

test.each([
  ['a host', dnsName('example.org')],
  ['an address', ipName(127, 0, 0, 1)],
  ['an e-mail address', emailName('a@example.org')],
  [
    'an otherName',
    derElement(
      contextTag(0),
      derOid('1.3.6.1.4.1.311.20.2.3'),
      derElement(contextTag(0), derElement(0x0c, Buffer.from('x'))),
    ),
  ],
  ['a directory name', derElement(contextTag(4), encodeName([['CN', 'admin']]))],
])('A17 a CSR that asks for %s beside its URI is INVALID_ARGUMENT', async (_, name) => {
  await expectRefused(csrWith({ extensions: [san(uriName(TEST_ID), name)] }), INVALID_ARGUMENT);
});

test.each([
  ['CN=admin', encodeName([['CN', 'admin']])],
  ['a thousand characters', encodeName([['CN', 'x'.repeat(1_000)]])],
  ['a NUL', encodeName([['CN', 'admin\0.evil']])],
  ['letters that turn the text around', encodeName([['CN', '\u202etrac\u202c']])],
  ['an empty one', encodeName([])],
])('A18 a subject is never copied: %s', async (_, subjectDer) => {
  const outcome = await client.create(csrWith({ subjectDer }));
  // Refused or passed over: what is issued carries the identity alone.
  expect([0, INVALID_ARGUMENT]).toContain(outcome.code);
  if (outcome.code === 0) {
    const [leaf] = parseCertificates(Buffer.from(outcome.chain[0]!), 'leaf');
    expect([leaf!.subject, uriNames(leaf!)]).toEqual(['', [TEST_ID]]);
  }
});

test.each([
  ['CA:TRUE', encodeBasicConstraints(true)],
  ['keyCertSign', encodeKeyUsage(['keyCertSign'])],
  ['digitalSignature', encodeKeyUsage(['digitalSignature'])],
  ['name constraints', uriConstraints(['cluster.local'], [])],
  ['any purpose', encodePurposes([PURPOSE.any])],
])('A19 a CSR that asks for %s is INVALID_ARGUMENT', async (_, extension) => {
  await expectRefused(
    csrWith({ extensions: [encodeUriNames([TEST_ID], true), extension] }),
    INVALID_ARGUMENT,
  );
});

const request = (...extensions: Uint8Array[]) =>
  derSequence(derOid('1.2.840.113549.1.9.14'), derElement(TAG.set, derSequence(...extensions)));
test.each<[string, () => Uint8Array]>([
  [
    'an unknown critical extension',
    () =>
      csrWith({
        extensions: [
          encodeUriNames([TEST_ID], true),
          encodeExtension('1.2.3.4', true, Buffer.of(5, 0)),
        ],
      }),
  ],
  [
    'an extension twice',
    () =>
      csrWith({ extensions: [encodeUriNames([TEST_ID], true), encodeUriNames([TEST_ID], true)] }),
  ],
  [
    'an attribute twice',
    () =>
      csrWith({
        attributes: [
          request(encodeUriNames([TEST_ID], true)),
          request(encodeUriNames([TEST_ID], true)),
        ],
      }),
  ],
  ...['1.3.6.1.4.1.311.2.1.14', '1.2.840.113549.1.9.2'].flatMap(
    (oid): [string, () => Uint8Array][] => {
      const own = request(encodeUriNames([TEST_ID], true));
      const other = derSequence(
        derOid(oid),
        derElement(TAG.set, derSequence(encodeUriNames(['spiffe://cluster.local/x'], true))),
      );
      return [
        [
          `field E13: attribute ${oid} behind its extensions`,
          () => csrWith({ attributes: [own, other] }),
        ],
        [
          `field E13: attribute ${oid} before its extensions`,
          () => csrWith({ attributes: [other, own] }),
        ],
      ];
    },
  ),
  [
    'a default that is spelt out',
    () =>
      csrWith({ extensions: [derSequence(derOid(EXTENSION.subjectAltName), derBoolean(false))] }),
  ],
])(
  'A20 a CSR with %s is INVALID_ARGUMENT',
  async (_, der) => void (await expectRefused(der(), INVALID_ARGUMENT)),
);

test('A21 a challenge password is passed over and reaches no log', async () => {
  const password = 'hunter2-canary';
  const challenge = derSequence(
    derOid('1.2.840.113549.1.9.7'),
    derElement(TAG.set, derElement(0x0c, Buffer.from(password))),
  );
  const outcome = await client.create(
    csrWith({ attributes: [challenge, request(encodeUriNames([TEST_ID], true))] }),
  );
  expect(outcome.code).toBe(0);
  expect(JSON.stringify([world.events, world.audit()])).not.toContain(password);
});

describe('A22 a SPIFFE ID that is not the own one to the letter is refused', () => {
  test.each([
    'spiffe://cluster.local/ns//shop/sa/cart',
    'spiffe://cluster.local/ns/./shop/sa/cart',
    'spiffe://cluster.local/ns/x/../shop/sa/cart',
    'spiffe://cluster.local/ns/shop/sa/cart/',
    'spiffe://cluster.local/ns/shop/sa/c%61rt',
    'spiffe://cluster.local/ns/shop%2Fsa/cart',
    'spiffe://cluster.local/ns/shop/sa/cart?q',
    'spiffe://cluster.local/ns/shop/sa/cart#f',
    'spiffe://CLUSTER.local/ns/shop/sa/cart',
    'SPIFFE://cluster.local/ns/shop/sa/cart',
    'spiffe://cluster.local:8080/ns/shop/sa/cart',
    'spiffe://user@cluster.local/ns/shop/sa/cart',
    'spiffe://[::1]/ns/shop/sa/cart',
    'spiffe:///ns/shop/sa/cart',
    'spiffe://cluster.local/ns/shop/sa/c\u00e4rt',
    'spiffe://cluster.local/ns/shop/sa/cart\0',
    `spiffe://cluster.local/${'x'.repeat(2_049)}`,
    `spiffe://${'x'.repeat(256)}/ns/shop/sa/cart`,
    '',
  ])(
    '%j',
    async (uri) =>
      void (await expectRefused(csrWith({ extensions: [encodeUriNames([uri], true)] }), [
        INVALID_ARGUMENT,
        PERMISSION_DENIED,
      ])),
  );
});

describe('A24 a lifetime', () => {
  const DAY = 24 * 3_600;
  const lifetime = async (raw: bigint, by = client) => {
    const outcome = await by.create('', { raw: rawRequest({ validity: raw }) });
    const [leaf] =
      outcome.code === 0 ? parseCertificates(Buffer.from(outcome.chain[0]!), 'leaf') : [];
    return { outcome, seconds: leaf && Math.round((leaf.notAfterAt - Date.now()) / 1_000) };
  };
  test.each([0n, -1n, -(2n ** 63n)])('of %s is 24 hours', async (validity) => {
    const { seconds } = await lifetime(validity);
    expect(Math.abs(seconds! - DAY)).toBeLessThan(5);
  });
  test.each([
    [3_600, 3_600],
    [7 * DAY, DAY],
  ])(
    'that is not asked for is bounded by --max-ttl too: %d s give %d',
    async (maxTtlSeconds, given) => {
      const bounded = await startCaWorld({ maxTtlSeconds });
      try {
        const by = bounded.client(await issueIdentity(bounded.authority));
        for (const validity of [0n, -1n])
          expect(Math.abs((await lifetime(validity, by)).seconds! - given)).toBeLessThan(5);
        expect((await lifetime(BigInt(maxTtlSeconds + 1), by)).outcome).toMatchObject({
          code: INVALID_ARGUMENT,
        });
      } finally {
        await bounded.close();
      }
    },
  );
  test.each([BigInt(90 * DAY + 1), 2n ** 53n, 2n ** 63n - 1n])(
    'of %s s is refused, as upstream does',
    async (validity) => {
      const before = world.issued();
      expect((await lifetime(validity)).outcome).toMatchObject({
        code: INVALID_ARGUMENT,
        details: expect.stringContaining('is greater than the max allowed TTL'),
      });
      expect(world.issued()).toBe(before);
    },
  );
  test('of 90 days is given', async () =>
    expect((await lifetime(BigInt(90 * DAY))).outcome.code).toBe(0));
});

function rawRequest({
  validity = 3_600n,
  metadata = new Uint8Array(),
  more = new Uint8Array(),
}: {
  validity?: bigint;
  metadata?: Uint8Array;
  more?: Uint8Array;
}) {
  const writer = new BinaryWriter()
    .uint32(10)
    .string(pem(csrWith({})))
    .uint32(24)
    .int64(validity);
  if (metadata.length > 0) writer.uint32(34).bytes(metadata);
  return Buffer.concat([writer.finish(), more]);
}

test.each([
  ['ImpersonatedIdentity', OTHER_ID],
  ['ImpersonatedIdentity', TEST_ID],
])('A36 %s %s is UNAUTHENTICATED, and nothing is told of why', async (name, value) => {
  const details = await expectRefused(csrWith({}), UNAUTHENTICATED, {
    metadata: new Map([[name, value]]),
  });
  expect(details).toBe('request impersonation authentication failure');
});
test('A36 an empty wish to impersonate, which ztunnel always sends, is none', async () => {
  expect(
    await client.create(csrWith({}), {
      metadata: new Map([
        ['ImpersonatedIdentity', ''],
        ['CertSigner', ''],
      ]),
    }),
  ).toMatchObject({ code: 0 });
});

describe('A46 protobuf that is not what it says is INVALID_ARGUMENT', () => {
  const nested = (levels: number) => {
    let value: Uint8Array = new Uint8Array();
    for (let level = 0; level < levels; level += 1) {
      const entry = new BinaryWriter()
        .uint32(10)
        .string('a')
        .uint32(18)
        .bytes(new BinaryWriter().uint32(42).bytes(value).finish())
        .finish();
      value = new BinaryWriter().uint32(10).bytes(entry).finish();
      if (value.length > 50_000) break;
    }
    return value;
  };
  const named = (name: string) =>
    new BinaryWriter()
      .uint32(10)
      .bytes(
        new BinaryWriter()
          .uint32(10)
          .string(name)
          .uint32(18)
          .bytes(new BinaryWriter().uint32(26).string('x').finish())
          .finish(),
      )
      .finish();
  test.each<[string, () => Uint8Array]>([
    ['a CSR that is a number', () => new BinaryWriter().uint32(8).uint64(1n).finish()],
    ['a length beyond the end', () => Buffer.of(10, 200, 1, 65)],
    ['a group that ends nothing', () => Buffer.concat([Buffer.of(12), rawRequest({})])],
    ['a tag of zero', () => Buffer.concat([Buffer.of(0), rawRequest({})])],
    ['bytes', () => Buffer.from('not protobuf at all')],
    ['a varint without end', () => Buffer.alloc(32, 0xff)],
    ['metadata of many levels', () => rawRequest({ metadata: nested(10_000) })],
    ['__proto__', () => rawRequest({ metadata: named('__proto__') })],
    ['constructor', () => rawRequest({ metadata: named('constructor') })],
  ])('%s', async (_, raw) => {
    await expectRefused('', INVALID_ARGUMENT, { raw: raw() });
    expect(Object.keys(Object.prototype)).toEqual([]);
    expect(({} as Record<string, unknown>).x).toBeUndefined();
  });
  test('A46 unknown fields are passed over within the limit, and refused beyond it', async () => {
    const unknown = (size: number) =>
      new BinaryWriter().uint32(7_002).bytes(Buffer.alloc(size)).finish();
    expect(await client.create('', { raw: rawRequest({ more: unknown(10_000) }) })).toMatchObject({
      code: 0,
    });
    await expectRefused(
      '',
      [RESOURCE_EXHAUSTED, INVALID_ARGUMENT],
      { raw: rawRequest({ more: unknown(1024 * 1024) }) },
      2_000,
    );
  });
});

test('after all of that the server signs as before', async () => {
  expect(await client.create((await makeRequest()).csrDer)).toMatchObject({ code: 0 });
  expect(world.server.problems()).toEqual([]);
});
