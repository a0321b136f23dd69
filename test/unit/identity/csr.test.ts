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
  readDer,
  TAG,
} from '../../../agent/base/der';
import type { Csr } from '../../../agent/identity/csr';
import { type CertificateEngine, ENGINES } from '../../../agent/identity/engine';
import {
  EXTENSION,
  encodeBasicConstraints,
  encodeExtension,
  encodeKeyUsage,
  encodePurposes,
  encodeUriNames,
} from '../../../agent/identity/extensions';
import { loadEngine } from '../../../agent/identity/load-engine';
import { EMPTY_NAME, encodeName } from '../../../agent/identity/name';
import {
  type CsrOptions,
  dnsName,
  emailName,
  ipName,
  makeCsr,
  makeKey,
  spkiOf,
  TEST_ID,
} from '../../support/certs';
import { cpuMs } from '../../support/load';
import { mutated, RUNS } from '../../support/mutations';
import { outcomeOf } from '../../support/outcome';

const ec = makeKey('ec', 'P-256');
const rsa = makeKey('rsa', 2048);
const csr = (options: Partial<CsrOptions> = {}) => makeCsr({ privateKey: ec, ...options });
const refused = (field: string, rule: string) => ({ field: `csr ${field}`.trim(), rule });
const curveRule = 'must be on the named curve P-256, P-384 or P-521';
const pointRule = 'must be an uncompressed point of its curve';
const algorithmRule = (text: string) =>
  `must be ECDSA or RSA with SHA-256, SHA-384 or SHA-512, not ${text}`;

/** An EC SubjectPublicKeyInfo with any parameters and point. */
const ecSpki = (parameters: Uint8Array, point: Uint8Array) =>
  derSequence(derSequence(derOid('1.2.840.10045.2.1'), parameters), derBitString(point));
const p256 = derOid('1.2.840.10045.3.1.7');
const point = spkiOf(ec).subarray(-65);
const rsaSpki = (modulus: Uint8Array, exponent: Uint8Array | number) =>
  derSequence(
    derSequence(derOid('1.2.840.113549.1.1.1'), derElement(TAG.null)),
    derBitString(derSequence(derInteger(modulus), derInteger(exponent))),
  );
const request = (...extensions: Uint8Array[]) =>
  derSequence(derOid('1.2.840.113549.1.9.14'), derElement(TAG.set, derSequence(...extensions)));
const challenge = derSequence(
  derOid('1.2.840.113549.1.9.7'),
  derElement(TAG.set, derElement(TAG.utf8String, Buffer.from('hunter2'))),
);
const replaceEnd = (der: Uint8Array, octets: Uint8Array) =>
  Buffer.concat([der.subarray(0, der.length - octets.length), octets]);

describe.each(ENGINES)('engine %s', (name) => {
  let engine: CertificateEngine;
  beforeAll(async () => {
    engine = await loadEngine(name);
  });

  describe('tells what a request says', () => {
    const plain: Csr = {
      spkiDer: spkiOf(ec),
      uris: [TEST_ID],
      otherNames: [],
      otherExtensions: [],
      subjectDer: encodeName([['O', '']]),
      hasCommonName: false,
    };
    const names = (...others: Uint8Array[]) =>
      encodeExtension(
        EXTENSION.subjectAltName,
        true,
        derSequence(derElement(contextTag(6, 'primitive'), Buffer.from(TEST_ID)), ...others),
      );
    test.each<[string, () => Uint8Array, Partial<Csr>]>([
      ['a plain one', () => csr(), {}],
      ['an empty subject', () => csr({ subjectDer: EMPTY_NAME }), { subjectDer: EMPTY_NAME }],
      ['no attributes', () => csr({ attributes: [] }), { uris: [] }],
      [
        'no SAN',
        () => csr({ extensions: [encodeKeyUsage(['digitalSignature'])] }),
        { uris: [], otherExtensions: ['2.5.29.15'] },
      ],
      [
        'A16 two URIs',
        () => csr({ extensions: [encodeUriNames([TEST_ID, TEST_ID], true)] }),
        { uris: [TEST_ID, TEST_ID] },
      ],
      [
        'A17 other names',
        () => csr({ extensions: [names(dnsName('x'), ipName(127, 0, 0, 1), emailName('a@b'))] }),
        { otherNames: ['dns', 'ip', 'email'] },
      ],
      [
        'A18 a common name',
        () => csr({ subjectDer: encodeName([['CN', 'admin\0\u202e']]) }),
        { subjectDer: encodeName([['CN', 'admin\0\u202e']]), hasCommonName: true },
      ],
      [
        'A19 extensions that only a CA may ask for',
        () =>
          csr({
            extensions: [
              encodeUriNames([TEST_ID], true),
              encodeBasicConstraints(true),
              encodeKeyUsage(['keyCertSign']),
              encodePurposes(['2.5.29.37.0']),
            ],
          }),
        { otherExtensions: ['2.5.29.19', '2.5.29.15', '2.5.29.37'] },
      ],
      [
        'A20 an unknown critical extension',
        () =>
          csr({
            extensions: [
              encodeUriNames([TEST_ID], true),
              encodeExtension('1.2.3.4', true, derInteger(1)),
            ],
          }),
        { otherExtensions: ['1.2.3.4'] },
      ],
      [
        'A21 a challenge password, of which nothing is kept',
        () => csr({ attributes: [challenge, request(encodeUriNames([TEST_ID], true))] }),
        {},
      ],
      ['RSA 2048', () => csr({ privateKey: rsa }), { spkiDer: spkiOf(rsa) }],
      [
        'RSA with SHA-512',
        () => csr({ privateKey: rsa, signature: 'RSA-SHA512' }),
        { spkiDer: spkiOf(rsa) },
      ],
      ['P-256 with SHA-384', () => csr({ signature: 'ECDSA-SHA384' }), {}],
    ])('%s', async (_, make, want) =>
      expect(await engine.readCsr(make())).toEqual({ ...plain, ...want }),
    );

    test.each(['P-384', 'P-521'])('%s', async (curve) => {
      const privateKey = makeKey('ec', curve);
      expect((await engine.readCsr(csr({ privateKey }))).spkiDer).toEqual(spkiOf(privateKey));
    });
  });

  describe('refuses', () => {
    const good = csr();
    const nested = () => {
      let der: Uint8Array = derInteger(1);
      while (der.length < 16_000) der = derSequence(der);
      return der;
    };
    test.each<[string, () => Uint8Array, unknown]>([
      ['A1 nothing', () => Buffer.alloc(0), refused('', 'must not be empty')],
      [
        'A1 text',
        () => Buffer.from('-----BEGIN CERTIFICATE REQUEST-----'),
        refused('', 'must have tag 0x30, not 0x2d'),
      ],
      ['A2 a cut off request', () => good.subarray(0, 100), refused('', 'is cut off')],
      [
        'A2 trailing bytes',
        () => Buffer.concat([good, Buffer.of(0)]),
        refused('', 'must not have trailing bytes'),
      ],
      [
        'A2 a second request behind it',
        () => Buffer.concat([good, good]),
        refused('', 'must not have trailing bytes'),
      ],
      [
        'A3 an indefinite length',
        () => Buffer.concat([Buffer.of(0x30, 0x80), good.subarray(3), Buffer.of(0, 0)]),
        refused('', 'must not have an indefinite length'),
      ],
      [
        'A3 a length that is not minimal',
        () =>
          Buffer.concat([
            Buffer.of(0x30, 0x83, 0),
            good.subarray(1, 1),
            Buffer.of(0, good.length - 3),
            good.subarray(3),
          ]),
        refused('', 'must have a minimal length'),
      ],
      ['A3 depth', nested, refused('signature algorithm', 'is missing')],
      [
        'A4 more than 16 KiB',
        () => Buffer.alloc(16 * 1024 + 1, 0x30),
        refused('', 'must not be longer than 16384 bytes'),
      ],
      [
        'A6 one bit of the signature',
        () => replaceEnd(good, Buffer.of(good.at(-1)! ^ 1)),
        refused('signature', 'must be made with its own key'),
      ],
      [
        'A6 another key',
        () => csr({ signer: makeKey('ec', 'P-256') }),
        refused('signature', 'must be made with its own key'),
      ],
      [
        'A6 a key of another kind',
        () => csr({ signer: rsa }),
        refused('signature', 'must be made with its own key'),
      ],
      [
        'A6 an empty signature',
        () => derSequence(...parts(good).slice(0, 2), derBitString(Buffer.alloc(0))),
        refused('signature', 'is missing'),
      ],
      [
        'A7 MD5',
        () => csr({ privateKey: rsa, signature: 'RSA-MD5' }),
        refused('signature algorithm', algorithmRule('RSA-MD5')),
      ],
      [
        'A7 SHA-1 with RSA',
        () => csr({ privateKey: rsa, signature: 'RSA-SHA1' }),
        refused('signature algorithm', algorithmRule('RSA-SHA1')),
      ],
      [
        'A7 SHA-1 with ECDSA',
        () => csr({ signature: 'ECDSA-SHA1' }),
        refused('signature algorithm', algorithmRule('ECDSA-SHA1')),
      ],
      [
        'A8 RSA 1024',
        () => csr({ privateKey: makeKey('rsa', 1024) }),
        refused('public key', 'must be RSA of at least 2048 bits'),
      ],
      [
        'A8 RSA 2047',
        () => csr({ privateKey: makeKey('rsa', 2047) }),
        refused('public key', 'must be RSA of at least 2048 bits'),
      ],
      [
        'A9 RSA 16384',
        () => csr({ spkiDer: rsaSpki(Buffer.alloc(2048, 0xff), 65_537) }),
        refused('public key', 'must be RSA of at most 8192 bits'),
      ],
      [
        'A9 exponent 1',
        () => csr({ spkiDer: rsaSpki(Buffer.alloc(256, 0xff), 1) }),
        refused('public key', 'must have 65537 as RSA exponent'),
      ],
      [
        'A9 exponent 3',
        () => csr({ privateKey: makeKey('rsa', 2048, 3) }),
        refused('public key', 'must have 65537 as RSA exponent'),
      ],
      [
        'A9 an even exponent',
        () => csr({ spkiDer: rsaSpki(Buffer.alloc(256, 0xff), 65_536) }),
        refused('public key', 'must have 65537 as RSA exponent'),
      ],
      [
        'A9 a huge exponent',
        () => csr({ spkiDer: rsaSpki(Buffer.alloc(256, 0xff), Buffer.alloc(256, 0xff)) }),
        refused('public key', 'must have 65537 as RSA exponent'),
      ],
      [
        'A10 an even modulus',
        () => csr({ spkiDer: rsaSpki(Buffer.alloc(256, 0xfe), 65_537) }),
        refused('public key', 'must have an odd RSA modulus'),
      ],
      [
        'A11 secp256k1',
        () => csr({ privateKey: makeKey('ec', 'secp256k1') }),
        refused('public key', curveRule),
      ],
      [
        'A11 P-224',
        () => csr({ privateKey: makeKey('ec', 'secp224r1') }),
        refused('public key', curveRule),
      ],
      [
        'A11 brainpool',
        () => csr({ privateKey: makeKey('ec', 'brainpoolP256r1') }),
        refused('public key', curveRule),
      ],
      [
        'A11 explicit parameters',
        () => csr({ spkiDer: ecSpki(derSequence(derInteger(1)), point) }),
        refused('public key', curveRule),
      ],
      [
        'A12 a compressed point',
        () => csr({ spkiDer: ecSpki(p256, Buffer.concat([Buffer.of(2), point.subarray(1, 33)])) }),
        refused('public key', pointRule),
      ],
      [
        'A12 a hybrid point',
        () => csr({ spkiDer: ecSpki(p256, Buffer.concat([Buffer.of(6), point.subarray(1)])) }),
        refused('public key', pointRule),
      ],
      [
        'A12 infinity',
        () => csr({ spkiDer: ecSpki(p256, Buffer.of(0)) }),
        refused('public key', pointRule),
      ],
      [
        'A12 a point off the curve',
        () => csr({ spkiDer: ecSpki(p256, replaceEnd(point, Buffer.of(point.at(-1)! ^ 1))) }),
        { field: expect.stringMatching(/^csr/), rule: expect.any(String) },
      ],
      [
        'A12 a point of zeros',
        () => csr({ spkiDer: ecSpki(p256, Buffer.concat([Buffer.of(4), Buffer.alloc(64)])) }),
        { field: expect.stringMatching(/^csr/), rule: expect.any(String) },
      ],
      [
        'A13 Ed25519',
        () => csr({ privateKey: makeKey('ed25519') }),
        refused('signature algorithm', algorithmRule('Ed25519')),
      ],
      [
        'A13 Ed25519 behind an ECDSA signature',
        () => csr({ spkiDer: spkiOf(makeKey('ed25519')) }),
        refused('public key', 'must be an ECDSA or RSA key'),
      ],
      [
        'A20 an extension twice',
        () =>
          csr({ extensions: [encodeUriNames([TEST_ID], true), encodeUriNames([TEST_ID], true)] }),
        refused('extensions', 'must not repeat 2.5.29.17'),
      ],
      [
        'A20 an attribute twice',
        () => csr({ attributes: [request(encodeUriNames([TEST_ID], true)), request()] }),
        refused('attributes', 'must not repeat one'),
      ],
      ...['1.3.6.1.4.1.311.2.1.14', '1.2.840.113549.1.9.2', '1.2.840.113549.1.9.8'].flatMap(
        (oid): [string, () => Uint8Array, unknown][] => {
          const other = derSequence(
            derOid(oid),
            derElement(TAG.set, derSequence(encodeUriNames(['spiffe://cluster.local/x'], true))),
          );
          const own = request(encodeUriNames([TEST_ID], true));
          const rule = `must be extensionRequest or challengePassword, not ${oid}`;
          return [
            [
              `field E13: attribute ${oid} after the list of extensions`,
              () => csr({ attributes: [own, other] }),
              refused('attributes', rule),
            ],
            [
              `field E13: attribute ${oid} before the list of extensions`,
              () => csr({ attributes: [other, own] }),
              refused('attributes', rule),
            ],
          ];
        },
      ),
      [
        'two lists of extensions in one attribute',
        () =>
          csr({
            attributes: [
              derSequence(
                derOid('1.2.840.113549.1.9.14'),
                derElement(TAG.set, derSequence(), derSequence()),
              ),
            ],
          }),
        refused('extension request', 'must not have trailing bytes'),
      ],
      ['version 2', () => csr({ version: 1 }), refused('version', 'must be 1')],
      [
        'RSA without NULL parameters',
        () =>
          csr({
            spkiDer: derSequence(
              derSequence(derOid('1.2.840.113549.1.1.1')),
              derBitString(derSequence(derInteger(Buffer.alloc(256, 0xff)), derInteger(65_537))),
            ),
          }),
        refused('public key', 'must have NULL as RSA parameters'),
      ],
      [
        'a SAN that is no list of names',
        () =>
          csr({
            extensions: [
              encodeExtension(EXTENSION.subjectAltName, true, derOctetString(Buffer.of(1))),
            ],
          }),
        refused('subject alternative name', 'must have tag 0x30, not 0x04'),
      ],
    ])('%s', async (_, make, want) =>
      expect(await outcomeOf(engine.readCsr(make()))).toEqual(want),
    );
  });

  test('A9 a request with a key of 16 KiB is refused in a moment', async () => {
    const der = csr({ spkiDer: rsaSpki(Buffer.alloc(15_000, 0xff), 65_537) });
    const startedAt = cpuMs();
    await expect(engine.readCsr(der)).rejects.toThrow('at most 8192 bits');
    expect(cpuMs() - startedAt).toBeLessThan(500);
  });
});

test('mutated requests are refused with field and rule, or still carry a key that signed them and the very bytes that it signed', async () => {
  const engine = await loadEngine('direct');
  const seeds = [
    csr(),
    csr({ privateKey: rsa }),
    csr({
      attributes: [
        challenge,
        request(encodeUriNames([TEST_ID], true), encodeKeyUsage(['digitalSignature'])),
      ],
    }),
  ];
  await fc.assert(
    fc.asyncProperty(mutated(seeds), async (der) => {
      const found = await outcomeOf(engine.readCsr(der));
      if (!('spkiDer' in found))
        return expect(found).toEqual({
          field: expect.stringMatching(/^csr/),
          rule: expect.any(String),
        });
      // No change of what is signed can pass, and the signature's own encoding has only one form.
      expect(seeds.map((seed) => Buffer.from(seed).toString('hex'))).toContain(
        Buffer.from(der).toString('hex'),
      );
    }),
    { numRuns: RUNS },
  );
});

test('the three engines agree on mutated requests', async () => {
  const engines = await Promise.all(ENGINES.map(loadEngine));
  await fc.assert(
    fc.asyncProperty(mutated([csr(), csr({ privateKey: rsa })]), async (der) => {
      const verdicts = await Promise.all(engines.map((engine) => outcomeOf(engine.readCsr(der))));
      expect(verdicts.map((verdict) => 'spkiDer' in verdict)).toEqual(
        verdicts.map(() => 'spkiDer' in verdicts[0]!),
      );
    }),
    { numRuns: RUNS / 10 },
  );
});

/** The elements inside the outer SEQUENCE. */
function parts(der: Uint8Array): Uint8Array[] {
  return readDer(der, 'request', (outer) =>
    outer.sequence('', (inner) => inner.list('', 3, (each) => each.any('').der)),
  );
}
