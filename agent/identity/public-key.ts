import { createPublicKey, hash, type KeyObject } from 'node:crypto';
import { type DerElement, type DerReader, readDer, TAG } from '../base/der';
import { AgentError, invalid } from '../base/errors';

/** What a SubjectPublicKeyInfo holds. `weakness` says why policy refuses the key, or is undefined. */
export interface PublicKey {
  readonly spkiDer: Uint8Array;
  readonly kind: 'ec' | 'rsa' | 'other';
  /** For people, e.g. `ECDSA P-256`, `RSA 2048`, `1.3.101.112`. */
  readonly text: string;
  /** The bits of the field or modulus; 0 for other kinds. */
  readonly bits: number;
  readonly weakness: string | undefined;
  /** The content of the BIT STRING, from which key identifiers are made. */
  readonly keyBits: Uint8Array;
  /** Of RSA, big endian without leading zeros. */
  readonly modulus?: Uint8Array;
}

const EC_PUBLIC_KEY = '1.2.840.10045.2.1';
const RSA_ENCRYPTION = '1.2.840.113549.1.1.1';
const CURVES: Readonly<
  Record<string, { readonly text: string; readonly bits: number; readonly octets: number }>
> = {
  '1.2.840.10045.3.1.7': { text: 'P-256', bits: 256, octets: 32 },
  '1.3.132.0.34': { text: 'P-384', bits: 384, octets: 48 },
  '1.3.132.0.35': { text: 'P-521', bits: 521, octets: 66 },
};
const MIN_RSA_BITS = 2048;
/** Verifying with longer keys costs milliseconds of one core for nothing gained. */
const MAX_RSA_BITS = 8192;

/**
 * Reads the SubjectPublicKeyInfo that is next.
 *
 * Grammar is refused here; strength is only told (`weakness`), because a root that others chose may sit in a bundle unused. Weak is: RSA
 * below 2048 or above 8192 bits, an even modulus, an exponent other than 65537; any curve but P-256, P-384 and P-521; curve parameters
 * that are spelt out; a point that is compressed or at infinity; every other kind of key (Ed25519 too, which Envoy does not take).
 * Whether a point is on its curve is OpenSSL's to say: `createKeyObject`.
 */
export function readPublicKey(reader: DerReader, name: string): PublicKey {
  const element = reader.element(name, TAG.sequence);
  return reader.inside(name, element, (inner) => {
    const { oid, parameters } = inner.sequence(name, (algorithm) => ({
      oid: algorithm.oid(name),
      parameters: algorithm.atEnd ? undefined : algorithm.any(name),
    }));
    const keyBits = inner.octetBits(name);
    const facts =
      oid === EC_PUBLIC_KEY
        ? ecFacts(inner, parameters, keyBits)
        : oid === RSA_ENCRYPTION
          ? rsaFacts(inner, parameters, keyBits)
          : { kind: 'other' as const, text: oid, bits: 0, weakness: 'must be an ECDSA or RSA key' };
    return { spkiDer: element.der, keyBits, ...facts };
  });
}

/** As `readPublicKey`, of DER that stands alone. */
export function parsePublicKey(spkiDer: Uint8Array, field = 'public key'): PublicKey {
  return readDer(spkiDer, field, (reader) => readPublicKey(reader, ''));
}

type Facts = Pick<PublicKey, 'kind' | 'text' | 'bits' | 'weakness' | 'modulus'>;

function ecFacts(
  reader: DerReader,
  parameters: DerElement | undefined,
  keyBits: Uint8Array,
): Facts {
  const named =
    parameters?.tag === TAG.oid
      ? reader.within('curve', parameters.der, (inner) => inner.oid('curve'))
      : undefined;
  const curve = named === undefined ? undefined : CURVES[named];
  if (curve === undefined) {
    return {
      kind: 'ec',
      text: `ECDSA ${named ?? 'explicit curve'}`,
      bits: 0,
      weakness: 'must be on the named curve P-256, P-384 or P-521',
    };
  }
  const uncompressed = keyBits[0] === 0x04 && keyBits.length === 1 + 2 * curve.octets;
  return {
    kind: 'ec',
    text: `ECDSA ${curve.text}`,
    bits: curve.bits,
    weakness: uncompressed ? undefined : 'must be an uncompressed point of its curve',
  };
}

function rsaFacts(
  reader: DerReader,
  parameters: DerElement | undefined,
  keyBits: Uint8Array,
): Facts {
  const { modulus, exponent } = reader.within('rsa key', keyBits, (inner) =>
    inner.sequence('rsa key', (key) => ({
      modulus: key.integer('modulus'),
      exponent: key.integer('exponent'),
    })),
  );
  const digits = modulus[0] === 0 ? modulus.subarray(1) : modulus;
  const bits =
    modulus[0]! >= 0x80 || digits.length === 0
      ? 0
      : digits.length * 8 - Math.clz32(digits[0]!) + 24;
  const weakness =
    parameters === undefined || Buffer.compare(parameters.der, Buffer.of(TAG.null, 0)) !== 0
      ? 'must have NULL as RSA parameters'
      : bits < MIN_RSA_BITS
        ? `must be RSA of at least ${MIN_RSA_BITS} bits`
        : bits > MAX_RSA_BITS
          ? `must be RSA of at most ${MAX_RSA_BITS} bits`
          : digits.at(-1)! % 2 === 0
            ? 'must have an odd RSA modulus'
            : Buffer.compare(exponent, Buffer.of(1, 0, 1)) !== 0
              ? 'must have 65537 as RSA exponent'
              : undefined;
  return { kind: 'rsa', text: `RSA ${bits}`, bits, weakness, modulus: digits };
}

/**
 * OpenSSL's object for a key, for verifying.
 *
 * @throws AgentError ERR_PARSE where the key is weak or OpenSSL refuses it, e.g. a point off its curve.
 */
export function createKeyObject(key: PublicKey, field = 'public key'): KeyObject {
  assertStrong(key, field);
  try {
    return createPublicKey({ key: Buffer.from(key.spkiDer), format: 'der', type: 'spki' });
  } catch (cause) {
    throw unreadableKey(field, cause);
  }
}

/** @throws AgentError ERR_PARSE where policy refuses the key. */
export function assertStrong(key: PublicKey, field: string): void {
  if (key.weakness !== undefined) throw invalid('ERR_PARSE', field, key.weakness);
}

/** OpenSSL refuses a key that reads well. */
export function unreadableKey(field: string, cause: unknown): AgentError {
  return new AgentError('ERR_PARSE', `${field}: must be a valid public key`, {
    field,
    rule: 'must be a valid public key',
    cause,
  });
}

/**
 * A key identifier: the leftmost 160 bits of the SHA-256 of the public key's bits. The older way takes SHA-1, which has no place here.
 *
 * @param key  SubjectPublicKeyInfo, DER or read already.
 * @see RFC 7093 section 2, method 1.
 */
export function keyIdentifier(key: Uint8Array | PublicKey): Uint8Array {
  const { keyBits } = key instanceof Uint8Array ? parsePublicKey(key) : key;
  return hash('sha256', keyBits, 'buffer').subarray(0, 20);
}
