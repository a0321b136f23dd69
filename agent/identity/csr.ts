import type { DerReader } from '../base/der';
import { invalid } from '../base/errors';
import { EXTENSION, readGeneralNames } from './extensions';
import { COMMON_NAME } from './name';
import {
  ATTRIBUTE,
  type CertificationRequest,
  readCertificationRequest,
  readInside,
  readRequested,
} from './pkcs10';
import type { PublicKey } from './public-key';
import { factorWeakness } from './rsa-factors';
import type { SignatureAlgorithm } from './signature';

/** What a certificate signing request says. Nothing of it is to be trusted but that its sender holds the key. */
export interface Csr {
  readonly spkiDer: Uint8Array;
  /** URI SANs, as written. */
  readonly uris: readonly string[];
  /** Kinds of other SANs present, e.g. `dns`, `ip`, `email`, `other`. */
  readonly otherNames: readonly string[];
  /** OIDs of requested extensions other than SAN. */
  readonly otherExtensions: readonly string[];
  /** Subject, DER of the Name. */
  readonly subjectDer: Uint8Array;
  readonly hasCommonName: boolean;
}

/** A request as it reads, its signature not yet verified. */
export interface UnverifiedCsr {
  readonly der: Uint8Array;
  readonly facts: Csr;
  readonly publicKey: PublicKey;
  /** What is signed, with what, and the signature. */
  readonly infoDer: Uint8Array;
  readonly signatureAlgorithm: SignatureAlgorithm;
  readonly signature: Uint8Array;
}

/** What a request may say beside its extensions: a password says nothing of what the certificate is to hold. */
const ATTRIBUTES: ReadonlySet<string> = new Set(Object.values(ATTRIBUTE));

/** A request for RSA-8192 with a subject and an identity of 2048 bytes fits four times. */
const MAX_CSR_BYTES = 16 * 1024;

/**
 * Reads a PKCS#10 request, to the letter: DER without trailing bytes, no attribute or extension twice, a key that policy takes, a signature
 * algorithm that policy takes. Beside extensionRequest it may hold a challengePassword, of which nothing is used. Any other attribute is
 * refused: a later reader may take names from it, as from Microsoft's list of extensions (1.3.6.1.4.1.311.2.1.14) or an unstructuredName.
 *
 * @throws AgentError ERR_PARSE with the field `csr ...`.
 * @see RFC 2986 section 4; RFC 2985 section 5.4.2.
 */
export function parseCsr(der: Uint8Array): UnverifiedCsr {
  const request = readCertificationRequest(der, MAX_CSR_BYTES);
  const { infoDer, signatureAlgorithm, signature } = request;
  if (signatureAlgorithm.usable === undefined) {
    throw refused(
      'signature algorithm',
      `must be ECDSA or RSA with SHA-256, SHA-384 or SHA-512, not ${signatureAlgorithm.text}`,
    );
  }
  if (signatureAlgorithm.usable.kind === 'ec')
    readInside('signature', signature, readEcdsaSignature);
  return {
    der,
    facts: acceptRequest(request),
    publicKey: request.publicKey,
    infoDer,
    signatureAlgorithm,
    signature,
  };
}

/**
 * Refuses an RSA key that anybody can factor: what a certificate's key is not asked every time, and a new one is. Takes up to 2 ms (RSA 8192).
 *
 * @throws AgentError ERR_PARSE.
 */
export function assertNotFactorable({ publicKey }: UnverifiedCsr): void {
  const weakness = publicKey.modulus && factorWeakness(publicKey.modulus);
  if (weakness !== undefined) throw refused('public key', weakness);
}

/** ECDSA-Sig-Value: OpenSSL refuses other spellings of the two numbers by itself, @peculiar/x509 does not. */
function readEcdsaSignature(signature: DerReader): void {
  signature.sequence('signature', (inner) => [
    inner.integer('signature'),
    inner.integer('signature'),
  ]);
}

function acceptRequest(request: CertificationRequest): Csr {
  const { subject, publicKey, attributes, extensions } = request;
  if (request.version !== 0) throw refused('version', 'must be 1');
  if (publicKey.weakness !== undefined) throw refused('public key', publicKey.weakness);
  if (new Set(attributes).size !== attributes.length)
    throw refused('attributes', 'must not repeat one');
  const unknown = attributes.filter((oid) => !ATTRIBUTES.has(oid));
  if (unknown.length > 0)
    throw refused(
      'attributes',
      `must be extensionRequest or challengePassword, not ${unknown.join(', ')}`,
    );
  const field = 'subject alternative name';
  const names =
    readRequested(request, EXTENSION.subjectAltName, field, (value) =>
      readGeneralNames(value, field),
    ) ?? [];
  return {
    spkiDer: publicKey.spkiDer,
    uris: names.filter(({ kind }) => kind === 'uri').map(({ value }) => value),
    otherNames: names.filter(({ kind }) => kind !== 'uri').map(({ kind }) => kind),
    otherExtensions: extensions
      .filter(({ oid }) => oid !== EXTENSION.subjectAltName)
      .map(({ oid }) => oid),
    subjectDer: subject.der,
    hasCommonName: subject.types.includes(COMMON_NAME),
  };
}

function refused(field: string, rule: string) {
  return invalid('ERR_PARSE', `csr ${field}`, rule);
}
