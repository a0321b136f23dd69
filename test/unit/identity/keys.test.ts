import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import {
  derBitString,
  derElement,
  derInteger,
  derOctetString,
  derOid,
  derSequence,
} from '../../../agent/base/der';
import { writePem } from '../../../agent/base/pem';
import {
  generateKeyPair,
  KEY_ALGORITHMS,
  privateKeyPem,
  readPrivateKey,
} from '../../../agent/identity/keys';
import { keyIdentifier, parsePublicKey } from '../../../agent/identity/public-key';
import { makeKey, spkiOf } from '../../support/certs';
import { outcome } from '../../support/outcome';

const labels = {
  pkcs8: 'PRIVATE KEY',
  traditional: { ec: 'EC PRIVATE KEY', rs: 'RSA PRIVATE KEY' },
} as const;

test.each(KEY_ALGORITHMS)('%s keys are written and read in both forms', async (algorithm) => {
  const key = await generateKeyPair(algorithm);
  for (const format of ['pkcs8', 'traditional'] as const) {
    const pem = privateKeyPem(key, format);
    const label =
      format === 'pkcs8' ? labels.pkcs8 : labels.traditional[algorithm.slice(0, 2) as 'ec' | 'rs'];
    expect(pem.toString()).toMatch(
      new RegExp(`^-----BEGIN ${label}-----\n[\\s\\S]+\n-----END ${label}-----\n$`),
    );
    // OpenSSL's own writer is the judge of the bytes.
    const type = format === 'pkcs8' ? 'pkcs8' : algorithm.startsWith('rsa') ? 'pkcs1' : 'sec1';
    expect(pem.toString()).toBe(
      key.privateKey.reveal().export({ type: type as 'pkcs8', format: 'pem' }),
    );
    expect(readPrivateKey(pem, 'key')).toMatchObject({ algorithm, spkiDer: key.spkiDer });
    expect(createPrivateKey(pem).equals(key.privateKey.reveal())).toBe(true);
  }
});

test('a key pair prints nothing of its key', async () => {
  const key = await generateKeyPair('ecdsa-p256');
  expect(JSON.stringify(key)).toContain('[redacted]');
  expect(`${key.privateKey}`).toBe('[redacted]');
});

describe('readPrivateKey', () => {
  const p256 = makeKey('ec', 'P-256');
  const pem = Buffer.from(p256.export({ type: 'sec1', format: 'pem' }));

  test('passes over the EC PARAMETERS that OpenSSL writes before a key', () => {
    const parameters = writePem('EC PARAMETERS', derOid('1.2.840.10045.3.1.7'));
    expect(readPrivateKey(Buffer.concat([parameters, pem]), 'key').spkiDer).toEqual(spkiOf(p256));
  });

  const rule = 'must be ECDSA P-256 or P-384, or RSA of 2048, 3072 or 4096 bits';
  test.each([
    ['RSA 1024', () => makeKey('rsa', 1024)],
    ['RSA 2056', () => makeKey('rsa', 2056)],
    ['P-521', () => makeKey('ec', 'P-521')],
    ['secp256k1', () => makeKey('ec', 'secp256k1')],
    ['Ed25519', () => makeKey('ed25519')],
  ])('refuses %s', (_, make) => {
    const bytes = Buffer.from(make().export({ type: 'pkcs8', format: 'pem' }));
    expect(outcome(() => readPrivateKey(bytes, 'key'))).toEqual({ field: 'key', rule });
  });

  test.each<[string, () => KeyObject, string]>([
    ['P-521', () => makeKey('ec', 'P-521'), `key.pem: is ECDSA P-521: ${rule}`],
    ['Ed25519', () => makeKey('ed25519'), `key.pem: is ed25519: ${rule}`],
    [
      'RSA with exponent 3',
      () => makeKey('rsa', 2048, 3),
      'key.pem: is RSA 2048: must have 65537 as RSA exponent',
    ],
  ])('says of %s what it is, what it must be, and how to make another', (_, make, message) => {
    const bytes = Buffer.from(make().export({ type: 'pkcs8', format: 'pem' }));
    expect(() => readPrivateKey(bytes, 'key.pem')).toThrow(
      expect.objectContaining({ message, hint: expect.stringContaining('openssl genpkey') }),
    );
  });

  test('refuses a key that carries the public half of another', () => {
    const scalar = Buffer.from(p256.export({ format: 'jwk' }).d!, 'base64url');
    const foreign = spkiOf(makeKey('ec', 'P-256')).subarray(-65);
    const sec1 = derSequence(
      derInteger(1),
      derOctetString(scalar),
      derElement(0xa0, derOid('1.2.840.10045.3.1.7')),
      derElement(0xa1, derBitString(foreign)),
    );
    expect(outcome(() => readPrivateKey(writePem('EC PRIVATE KEY', sec1), 'key'))).toEqual({
      field: 'key',
      rule: expect.stringMatching(
        /^must be a (private key with its own public half|valid private key)$/,
      ),
    });
  });

  test('refuses a public key', () => {
    const spki = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({
      type: 'spki',
      format: 'pem',
    });
    expect(outcome(() => readPrivateKey(Buffer.from(spki), 'key'))).toMatchObject({
      rule: expect.stringContaining('not PUBLIC KEY'),
    });
  });
});

test('a key identifier is 160 bits of SHA-256 over the bits of the key, RFC 7093 method 1', () => {
  // The point of P-256's generator; the digest was made with openssl dgst.
  const generator = Buffer.from(
    '046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5',
    'hex',
  );
  const spki = derSequence(
    derSequence(derOid('1.2.840.10045.2.1'), derOid('1.2.840.10045.3.1.7')),
    derBitString(generator),
  );
  expect(Buffer.from(keyIdentifier(spki)).toString('hex')).toBe(
    '698bea63dc44a344663ff1429aea10842df27b6b',
  );
  expect(parsePublicKey(spki)).toMatchObject({
    kind: 'ec',
    text: 'ECDSA P-256',
    bits: 256,
    weakness: undefined,
  });
});
