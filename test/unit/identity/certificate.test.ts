import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  contextTag,
  derBitString,
  derElement,
  derInteger,
  derOctetString,
  derOid,
  derSequence,
  derTime,
  TAG,
} from '../../../agent/base/der';
import { writePem } from '../../../agent/base/pem';
import {
  type Certificate,
  certificatesPem,
  isCa,
  isSelfIssued,
  parseCertificate,
  parseCertificates,
  parseRootBundle,
  uriNames,
} from '../../../agent/identity/certificate';
import { EXTENSION, encodeExtension, encodeKeyUsage } from '../../../agent/identity/extensions';
import { generateKeyPair, type KeyPair } from '../../../agent/identity/keys';
import { encodeName } from '../../../agent/identity/name';
import { parsePublicKey } from '../../../agent/identity/public-key';
import { createTrustBundle } from '../../../agent/identity/trust-bundle';
import {
  dnsName,
  emailName,
  HOUR_MS,
  ipName,
  issueLeaf,
  type LeafOptions,
  makeKey,
  makeTestCa,
  spkiOf,
  TEST_ID,
  TEST_NOW,
  type TestCa,
  uriConstraints,
} from '../../support/certs';
import { mutated, RUNS } from '../../support/mutations';
import { outcome } from '../../support/outcome';
import { tempDir } from '../../support/temp-dir';

let ca: TestCa;
let key: KeyPair;
beforeAll(async () => {
  ca = await makeTestCa();
  key = await generateKeyPair('ecdsa-p256');
});

const leaf = (options: Partial<LeafOptions> = {}) => issueLeaf(ca, { key, ...options });
const refused = (field: string, rule: string) => ({ field: `certificate ${field}`.trim(), rule });

test('the facts of a leaf', () => {
  const der = leaf({
    serial: Buffer.from('00ff01', 'hex'),
    otherNames: [dnsName('cart.shop'), ipName(10, 0, 0, 1), emailName('a@b')],
  });
  const facts = parseCertificate(der);
  const node = new X509Certificate(der);
  expect(facts).toMatchObject({
    serial: 'ff01',
    issuer: 'O=cluster.local, CN=root',
    subject: '',
    notBeforeAt: TEST_NOW - 120_000,
    notAfterAt: TEST_NOW + 24 * HOUR_MS,
    basicConstraints: { ca: false, pathLength: undefined },
    keyUsage: { usages: ['digitalSignature'], critical: true },
    extendedKeyUsage: ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'],
    subjectAltName: {
      critical: true,
      names: [
        { kind: 'uri', value: TEST_ID },
        { kind: 'dns', value: 'cart.shop' },
        { kind: 'ip', value: '10.0.0.1' },
        { kind: 'email', value: 'a@b' },
      ],
    },
    nameConstraints: undefined,
    unknownCritical: [],
  });
  expect(facts.publicKey.text).toBe('ECDSA P-256');
  expect(facts.signatureAlgorithm.text).toBe('ECDSA-SHA256');
  expect(facts.sha256).toBe(node.fingerprint256.replaceAll(':', '').toLowerCase());
  expect(facts.serial).toBe(node.serialNumber.toLowerCase());
  expect(Buffer.from(facts.authorityKeyId!)).toEqual(Buffer.from(ca.keyId));
  expect(uriNames(facts)).toEqual([TEST_ID]);
  expect([isCa(facts), isSelfIssued(facts)]).toEqual([false, false]);
});

test('the facts of a CA', async () => {
  const sub = await makeTestCa({
    parent: ca,
    pathLength: 2,
    extraExtensions: [uriConstraints(['.example.org', 'td'], ['bad.example.org'])],
  });
  const facts = parseCertificate(sub.certificateDer);
  expect(facts).toMatchObject({
    basicConstraints: { ca: true, pathLength: 2 },
    keyUsage: { usages: ['keyCertSign', 'cRLSign'], critical: true },
    nameConstraints: {
      permittedUris: ['.example.org', 'td'],
      excludedUris: ['bad.example.org'],
      otherKinds: [],
    },
  });
  expect([isCa(facts), isSelfIssued(facts)]).toEqual([true, false]);
  expect(isSelfIssued(parseCertificate(ca.certificateDer))).toBe(true);
});

describe('an authority key identifier that OpenSSL writes', () => {
  const dir = tempDir();
  const make = (name: string, ...options: readonly string[]) => {
    const common = [
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-subj',
      `/CN=${name}`,
    ];
    const files = ['-keyout', `${name}.key`, '-out', `${name}.pem`];
    execFileSync('openssl', ['req', '-x509', ...common, ...files, ...options], {
      cwd: dir,
      stdio: 'ignore',
    });
    return parseCertificates(readFileSync(join(dir, `${name}.pem`)), name)[0]!;
  };

  test.each([
    ['keyid:always,issuer:always', true, true],
    ['issuer:always', false, true],
    ['keyid', true, false],
  ])('as %s is read', (how, hasKeyId, hasSerial) => {
    const above = make('above');
    const below = make(
      'below',
      '-CA',
      'above.pem',
      '-CAkey',
      'above.key',
      '-addext',
      `authorityKeyIdentifier=${how}`,
    );
    expect(below.authorityKeyId).toEqual(hasKeyId ? above.subjectKeyId : undefined);
    expect(below.authoritySerial).toBe(hasSerial ? above.serial : undefined);
  });
});

describe('grammar', () => {
  const octets = (length: number) => Buffer.alloc(length, 1);
  const issuer = derElement(
    contextTag(1),
    derElement(contextTag(4), encodeName([['CN', 'above']])),
  );
  const serial = derElement(contextTag(2, 'primitive'), Buffer.of(10));
  const twice = () => encodeKeyUsage(['digitalSignature']);
  test.each<[string, () => Uint8Array, unknown]>([
    ['nothing', () => Buffer.alloc(0), refused('', 'must not be empty')],
    [
      'trailing bytes',
      () => Buffer.concat([leaf(), Buffer.of(0)]),
      refused('', 'must not have trailing bytes'),
    ],
    [
      'a negative serial',
      () => leaf({ serial: Buffer.of(0x80) }),
      refused('serial number', 'must not be negative'),
    ],
    [
      'a serial of 21 octets',
      () => leaf({ serial: octets(21) }),
      refused('serial number', 'must not be longer than 20 octets'),
    ],
    [
      'a padded serial',
      () => leaf({ serial: Buffer.of(0, 1) }),
      refused('serial number', 'must be a minimal integer'),
    ],
    [
      'extensions in version 1',
      () => leaf({ version: undefined }),
      refused('version', 'must be 3 where there are extensions'),
    ],
    [
      'version 4',
      () => leaf({ version: 3 }),
      refused('version', 'must be 3 where there are extensions'),
    ],
    [
      'an extension twice',
      () => leaf({ extraExtensions: [twice()] }),
      refused('extensions', 'must not repeat 2.5.29.15'),
    ],
    [
      'critical FALSE spelt out',
      () =>
        leaf({
          extraExtensions: [
            derSequence(
              derOid('1.2.3'),
              derElement(TAG.boolean, Buffer.of(0)),
              derOctetString(octets(1)),
            ),
          ],
        }),
      refused('extension', 'must not spell out a default'),
    ],
    [
      'a time with a fraction',
      () => leaf({ notBefore: derElement(TAG.utcTime, Buffer.from('260101000000.1Z')) }),
      refused('not before', 'must be YYMMDDHHMMSSZ'),
    ],
    [
      'GeneralizedTime before 2050',
      () => leaf({ notAfter: derElement(TAG.generalizedTime, Buffer.from('20300101000000Z')) }),
      refused('not after', 'must be YYYYMMDDHHMMSSZ, 2050 or later'),
    ],
    [
      'an empty SAN',
      () =>
        leaf({
          uris: [],
          extraExtensions: [encodeExtension(EXTENSION.subjectAltName, true, derSequence())],
        }),
      refused('subject alternative name', 'must not be empty'),
    ],
    [
      'a SAN with a control character',
      () => leaf({ uris: ['spiffe://td/a\n'] }),
      refused('subject alternative name', 'must hold printable ASCII'),
    ],
    [
      'a SAN beyond ASCII',
      () => leaf({ uris: ['spiffe://td/\xe9'] }),
      refused('subject alternative name', 'must hold printable ASCII'),
    ],
    [
      'a name kind of tag 9',
      () => leaf({ otherNames: [derElement(contextTag(9, 'primitive'))] }),
      refused('subject alternative name', 'must hold general names'),
    ],
    [
      'a key usage with trailing zeros',
      () =>
        leaf({
          keyUsage: undefined,
          extraExtensions: [encodeExtension(EXTENSION.keyUsage, true, Buffer.of(3, 2, 0, 0x80))],
        }),
      refused('key usage', 'must be a DER bit list, not empty'),
    ],
    [
      'a key usage of no bit',
      () =>
        leaf({
          keyUsage: undefined,
          extraExtensions: [encodeExtension(EXTENSION.keyUsage, true, Buffer.of(3, 1, 0))],
        }),
      refused('key usage', 'must be a DER bit list, not empty'),
    ],
    ...[issuer, serial].map((field, index): [string, () => Uint8Array, unknown] => [
      `an authority key identifier of ${['an issuer', 'a serial number'][index]} alone`,
      () =>
        leaf({
          noKeyIds: true,
          extraExtensions: [encodeExtension(EXTENSION.authorityKeyId, false, derSequence(field))],
        }),
      refused('authority key identifier', 'must have issuer and serial number together'),
    ]),
    [
      'an empty extended key usage',
      () => leaf({ purposes: [] }),
      refused('extended key usage', 'must not be empty'),
    ],
    [
      'an empty name part',
      () => leaf({ subjectDer: derSequence(derElement(TAG.set)) }),
      refused('subject', 'must not have an empty part'),
    ],
  ])('%s is refused', (_, make, want) =>
    expect(outcome(() => parseCertificate(make()))).toEqual(want),
  );

  test('a path length without CA:TRUE is refused', async () => {
    const value = encodeExtension(EXTENSION.basicConstraints, true, derSequence(derInteger(0)));
    const der = (await makeTestCa({ isCa: false, extraExtensions: [value] })).certificateDer;
    expect(outcome(() => parseCertificate(der))).toEqual(
      refused('path length', 'must not stand without CA:TRUE'),
    );
  });

  test('inner and outer signature algorithm are one', () => {
    const der = Buffer.from(leaf());
    const oid = derOid('1.2.840.10045.4.3.2');
    der[der.lastIndexOf(oid) + oid.length - 1] = 3;
    expect(outcome(() => parseCertificate(der))).toEqual(
      refused('signature algorithm', 'must be the same inside and outside'),
    );
  });

  test('a version 1 certificate without extensions is read', async () => {
    const root = parseCertificate((await makeTestCa({ version: undefined })).certificateDer);
    expect([root.basicConstraints, isCa(root)]).toEqual([undefined, false]);
  });

  test('critical extensions that nobody knows are told', () => {
    const der = leaf({
      extraExtensions: [
        encodeExtension('1.2.3.4', true, derInteger(1)),
        encodeExtension('1.2.3.5', false, derInteger(1)),
      ],
    });
    expect(parseCertificate(der).unknownCritical).toEqual(['1.2.3.4']);
  });

  test('F9 the year 9999 is read', () => {
    const at = Date.parse('9999-12-31T23:59:59Z');
    expect(parseCertificate(leaf({ notAfter: derTime(at) })).notAfterAt).toBe(at);
  });

  test('names print their attributes, and escape what a terminal would act on', () => {
    const subjectDer = encodeName([
      ['O', 'a, b=c'],
      ['CN', 'x\u001b[31m\u202e'],
    ]);
    expect(parseCertificate(leaf({ subjectDer })).subject).toBe(
      'O=a\\u{2c} b\\u{3d}c, CN=x\\u{1b}[31m\\u{202e}',
    );
  });
});

describe('keys and signatures that policy does not take are told, not hidden', () => {
  const weakness = (privateKey: Parameters<typeof spkiOf>[0]) =>
    parseCertificate(leaf({ key: { spkiDer: spkiOf(privateKey) } })).publicKey;
  test.each([
    ['RSA 1024', () => makeKey('rsa', 1024), 'RSA 1024', 'must be RSA of at least 2048 bits'],
    ['RSA 2047', () => makeKey('rsa', 2047), 'RSA 2047', 'must be RSA of at least 2048 bits'],
    [
      'RSA with exponent 3',
      () => makeKey('rsa', 2048, 3),
      'RSA 2048',
      'must have 65537 as RSA exponent',
    ],
    ['RSA 2048', () => makeKey('rsa', 2048), 'RSA 2048', undefined],
    [
      'secp256k1',
      () => makeKey('ec', 'secp256k1'),
      'ECDSA 1.3.132.0.10',
      'must be on the named curve P-256, P-384 or P-521',
    ],
    [
      'P-224',
      () => makeKey('ec', 'secp224r1'),
      'ECDSA 1.3.132.0.33',
      'must be on the named curve P-256, P-384 or P-521',
    ],
    ['P-521', () => makeKey('ec', 'P-521'), 'ECDSA P-521', undefined],
    ['Ed25519', () => makeKey('ed25519'), '1.3.101.112', 'must be an ECDSA or RSA key'],
  ])('%s', (_, make, text, rule) =>
    expect(weakness(make())).toMatchObject({ text, weakness: rule }),
  );

  test.each([
    ['no parameters', Buffer.alloc(0), 'must have NULL as RSA parameters'],
    ['other parameters', derSequence(), 'must have NULL as RSA parameters'],
    ['NULL', derElement(TAG.null), undefined],
  ])('RSA with %s (RFC 3279 section 2.3.1)', (_, parameters, rule) => {
    const { keyBits } = parsePublicKey(spkiOf(makeKey('rsa', 2048)));
    const algorithm = derSequence(derOid('1.2.840.113549.1.1.1'), parameters);
    expect(parsePublicKey(derSequence(algorithm, derBitString(keyBits))).weakness).toBe(rule);
  });

  test('SHA-1 is not usable', async () => {
    const rsa = await makeTestCa({ algorithm: 'rsa-2048' });
    expect(
      parseCertificate(issueLeaf(rsa, { key, signature: 'RSA-SHA1' })).signatureAlgorithm,
    ).toMatchObject({
      text: 'RSA-SHA1',
      usable: undefined,
    });
  });
});

describe('PEM files', () => {
  test('a chain is read in order', () => {
    const ders = [leaf(), ca.certificateDer];
    expect(
      parseCertificates(certificatesPem(ders), 'file').map(({ der }) => Buffer.from(der)),
    ).toEqual(ders.map((der) => Buffer.from(der)));
  });

  test.each(['TRUSTED CERTIFICATE', 'X509 CERTIFICATE', 'PRIVATE KEY'])(
    'C9 a block of %s among certificates is refused',
    (label) =>
      expect(
        outcome(() =>
          parseCertificates(
            Buffer.concat([certificatesPem([leaf()]), writePem(label, leaf())]),
            'file',
          ),
        ),
      ).toEqual({
        field: 'file block 2',
        rule: `must be CERTIFICATE, not ${label}`,
      }),
  );
});

test('a bundle without a root is none', () =>
  expect(outcome(() => createTrustBundle([]))).toEqual({
    field: 'trust bundle',
    rule: 'must hold at least one certificate',
  }));

describe('11 a bundle of roots keeps its good ones', () => {
  const text = (...parts: (Uint8Array | string)[]) =>
    Buffer.concat(
      parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : certificatesPem([part]))),
    );
  const rootsOf = (pem: Uint8Array) => {
    const { bundle, skipped } = parseRootBundle(pem, 'root-cert');
    return { count: bundle.rootsDer.length, skipped };
  };

  test('upstream 8: three good ones beside one with a negative serial', async () => {
    const [a, b, c] = await Promise.all([
      makeTestCa({ name: 'a' }),
      makeTestCa({ name: 'b' }),
      makeTestCa({ name: 'c' }),
    ]);
    const bad = await makeTestCa({ serial: Buffer.of(0xff) });
    expect(
      rootsOf(text(a!.certificateDer, bad.certificateDer, b!.certificateDer, c!.certificateDer)),
    ).toEqual({
      count: 3,
      skipped: ['root-cert block 2 serial number: must not be negative'],
    });
  });

  test('upstream 8: an invalid tail', () =>
    expect(rootsOf(text(ca.certificateDer, '-----BEGIN CERTIFICATE-----\nnonsense!\n'))).toEqual({
      count: 1,
      skipped: ['root-cert: block 2: must have an END line'],
    }));

  test('H8 a leaf among roots', () =>
    expect(rootsOf(text(leaf(), ca.certificateDer))).toEqual({
      count: 1,
      skipped: ['root-cert block 1: must be a CA certificate'],
    }));

  test('a CA that may not sign certificates, and one of version 1', async () => {
    const mute = await makeTestCa({ keyUsage: ['cRLSign'] });
    const old = await makeTestCa({ version: undefined });
    expect(
      rootsOf(text(ca.certificateDer, mute.certificateDer, old.certificateDer)).skipped,
    ).toEqual([
      'root-cert block 2: must be a CA certificate',
      'root-cert block 3: must be a CA certificate',
    ]);
  });

  test('C13 the same root twice counts once, and order does not matter', async () => {
    const other = await makeTestCa({ name: 'other' });
    const one = parseRootBundle(
      text(ca.certificateDer, other.certificateDer, ca.certificateDer),
      'f',
    ).bundle;
    const two = parseRootBundle(text(other.certificateDer, ca.certificateDer), 'f').bundle;
    expect(one.rootsDer).toHaveLength(2);
    expect(one.version).toBe(two.version);
  });

  test.each([
    ['an empty file', '', { field: 'root-cert', rule: 'must hold at least one PEM block' }],
    [
      'only a bad block',
      '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
      { field: 'root-cert', rule: 'is cut off' },
    ],
  ])('%s is refused', (_, pem, want) =>
    expect(outcome(() => parseRootBundle(Buffer.from(pem), 'root-cert'))).toEqual({
      ...want,
      field: expect.stringContaining(want.field),
      rule: expect.any(String),
    }),
  );
});

test.each([
  ['a UniversalString beyond the last character', 0x1c, '726f6f74'],
  ['a UniversalString of half a pair', 0x1c, '0000d800'],
  ['a BMPString of half a pair', 0x1e, 'd8000041'],
])('a name in %s is refused, as by OpenSSL', (_, tag, hex) => {
  const name = (value: Buffer) => Buffer.concat([Buffer.from([0x06, 3, 0x55, 4, 3]), value]);
  const [good, bad] = [
    name(Buffer.from('130472', 'hex')),
    name(Buffer.concat([Buffer.from([tag, 4]), Buffer.from(hex, 'hex')])),
  ];
  const der = Buffer.from(ca.certificateDer);
  const at = der.indexOf(good);
  expect(at).toBeGreaterThan(0);
  bad.copy(der, at);
  expect(() => new X509Certificate(der)).toThrow();
  expect(outcome(() => parseCertificate(der))).toEqual({
    field: expect.stringContaining('certificate'),
    rule: expect.any(String),
  });
});

test('mutated certificates are refused with field and rule, or read the same as by OpenSSL', () => {
  const seeds = [leaf({ otherNames: [dnsName('x')] }), ca.certificateDer];
  let accepted = 0;
  fc.assert(
    fc.property(mutated(seeds), (der) => {
      const found = outcome(() => parseCertificate(der));
      if (!('der' in found))
        return expect(found).toEqual({
          field: expect.stringMatching(/^certificate/),
          rule: expect.any(String),
        });
      accepted += 1;
      // A key that policy refuses anyway may be one that OpenSSL cannot even read.
      if (found.publicKey.weakness !== undefined) return;
      const node = new X509Certificate(der);
      expect(comparable(found)).toEqual(comparable(node));
      // Not the other way round: OpenSSL calls nothing a CA where an extension that we pass over (CRL distribution points) is damaged.
      if (node.ca) expect(isCa(found)).toBe(true);
    }),
    { numRuns: RUNS },
  );
  // Changes of the signature or a name leave a certificate that reads well: the property has seen both outcomes.
  expect(accepted).toBeGreaterThan(RUNS / 100);
});

function comparable(certificate: Certificate | X509Certificate) {
  if (certificate instanceof X509Certificate) {
    const { serialNumber, validFrom, validTo, raw } = certificate;
    return {
      serial: serialNumber.toLowerCase(),
      from: Date.parse(validFrom),
      to: Date.parse(validTo),
      raw,
    };
  }
  const { serial, notBeforeAt, notAfterAt, der } = certificate;
  return { serial, from: notBeforeAt, to: notAfterAt, raw: Buffer.from(der) };
}
