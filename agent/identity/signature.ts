import { type KeyObject, sign, verify } from 'node:crypto';
import { type DerReader, derElement, derOid, derSequence, TAG } from '../base/der';
import type { KeyAlgorithm, KeyPair } from './keys';
import { assertStrong, type PublicKey, unreadableKey } from './public-key';

/** A signature algorithm as an AlgorithmIdentifier names it. */
export interface SignatureAlgorithm {
  /** For people, e.g. `ECDSA-SHA256`; the OID where it is not one of ours. */
  readonly text: string;
  /** Undefined where policy refuses to verify it: MD5, SHA-1, RSA-PSS, Ed25519, DSA, unknown. */
  readonly usable:
    | { readonly hash: 'sha256' | 'sha384' | 'sha512'; readonly kind: 'ec' | 'rsa' }
    | undefined;
  readonly der: Uint8Array;
}

const NULL = derElement(TAG.null);
const USABLE = (
  [
    ['1.2.840.10045.4.3.2', 'ECDSA-SHA256', 'sha256', 'ec'],
    ['1.2.840.10045.4.3.3', 'ECDSA-SHA384', 'sha384', 'ec'],
    ['1.2.840.10045.4.3.4', 'ECDSA-SHA512', 'sha512', 'ec'],
    ['1.2.840.113549.1.1.11', 'RSA-SHA256', 'sha256', 'rsa'],
    ['1.2.840.113549.1.1.12', 'RSA-SHA384', 'sha384', 'rsa'],
    ['1.2.840.113549.1.1.13', 'RSA-SHA512', 'sha512', 'rsa'],
  ] as const
).map(([oid, text, hash, kind]) => ({
  text,
  usable: { hash, kind },
  // RFC 5758 section 3.2: absent for ECDSA; RFC 4055 section 5: NULL for RSA.
  der: kind === 'ec' ? derSequence(derOid(oid)) : derSequence(derOid(oid), NULL),
}));

const REFUSED: Readonly<Record<string, string>> = {
  '1.2.840.113549.1.1.4': 'RSA-MD5',
  '1.2.840.113549.1.1.5': 'RSA-SHA1',
  '1.2.840.113549.1.1.10': 'RSA-PSS',
  '1.2.840.10045.4.1': 'ECDSA-SHA1',
  '1.3.101.112': 'Ed25519',
};

/** Reads the AlgorithmIdentifier that is next. Equal to one of ours byte for byte, or not usable. */
export function readSignatureAlgorithm(reader: DerReader, name: string): SignatureAlgorithm {
  const element = reader.element(name, TAG.sequence);
  const known = USABLE.find((each) => Buffer.compare(each.der, element.der) === 0);
  if (known !== undefined) return { ...known, der: element.der };
  const oid = reader.within(name, element.content, (inner) => {
    const type = inner.oid(name);
    if (!inner.atEnd) inner.any(name);
    return type;
  });
  return { text: REFUSED[oid] ?? oid, usable: undefined, der: element.der };
}

const ALGORITHM_OF: Readonly<Record<KeyAlgorithm, string>> = {
  'ecdsa-p256': 'ECDSA-SHA256',
  'ecdsa-p384': 'ECDSA-SHA384',
  'rsa-2048': 'RSA-SHA256',
  'rsa-3072': 'RSA-SHA256',
  'rsa-4096': 'RSA-SHA256',
};

/** What a key of ours signs with: ECDSA with the hash of its curve's strength, RSA PKCS#1 v1.5 with SHA-256. */
export function signatureAlgorithmOf(algorithm: KeyAlgorithm): (typeof USABLE)[number] {
  return USABLE.find((each) => each.text === ALGORITHM_OF[algorithm])!;
}

/** Signs in this thread: 0.1 ms for ECDSA, 1 to 5 ms for RSA. */
export function signBytes(bytes: Uint8Array, key: KeyPair): Buffer {
  return sign(signatureAlgorithmOf(key.algorithm).usable.hash, bytes, key.privateKey.reveal());
}

/** As `signBytes` in a thread of the pool, so that whoever else is served does not wait. */
export function signAside(bytes: Uint8Array, key: KeyPair): Promise<Buffer> {
  const { hash } = signatureAlgorithmOf(key.algorithm).usable;
  return new Promise((resolve, reject) =>
    sign(hash, bytes, key.privateKey.reveal(), (error, signature) =>
      error ? reject(error) : resolve(signature),
    ),
  );
}

/** Whether `signature` is `key`'s over `bytes`. An algorithm that does not fit the key, or is not usable, is a no. */
export function isSignatureValid(
  algorithm: SignatureAlgorithm,
  bytes: Uint8Array,
  signature: Uint8Array,
  key: KeyObject,
): boolean {
  const { usable } = algorithm;
  if (usable === undefined || key.asymmetricKeyType !== usable.kind) return false;
  return verify(usable.hash, bytes, key, signature);
}

/**
 * As `isSignatureValid` in a thread of the pool, for a key that is used this once.
 *
 * @throws AgentError ERR_PARSE with `field` where the key is weak or OpenSSL refuses it.
 */
export async function isSignatureValidAside(
  { usable }: SignatureAlgorithm,
  bytes: Uint8Array,
  signature: Uint8Array,
  key: PublicKey,
  field: string,
): Promise<boolean> {
  assertStrong(key, field);
  if (usable === undefined || key.kind !== usable.kind) return false;
  const spki = { key: Buffer.from(key.spkiDer), format: 'der', type: 'spki' } as const;
  return new Promise<boolean>((resolve, reject) =>
    verify(usable.hash, bytes, spki, signature, (error, valid) =>
      error ? reject(error) : resolve(valid),
    ),
  ).catch((cause) => {
    // Only a key that cannot be read throws: whatever else is wrong is a no.
    throw unreadableKey(field, cause);
  });
}
