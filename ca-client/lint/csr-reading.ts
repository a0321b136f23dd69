import { constants, createPublicKey, type KeyObject, verify } from 'node:crypto';
import {
  EXTENSION,
  type GeneralName,
  type KeyUsage,
  readBasicConstraints,
  readGeneralNames,
  readKeyUsage,
  readPurposes,
} from '../../agent/identity/extensions';
import { COMMON_NAME, type Name } from '../../agent/identity/name';
import { readCertificationRequest, readRequested } from '../../agent/identity/pkcs10';
import type { PublicKey } from '../../agent/identity/public-key';
import { isSignatureValid, type SignatureAlgorithm } from '../../agent/identity/signature';

/** What a PKCS#10 request says, also where our own policy would refuse it: other authorities are more lenient, or refuse other things. */
export interface CsrReading {
  readonly subject: Name;
  readonly hasCommonName: boolean;
  readonly publicKey: PublicKey;
  /** OIDs of all attributes, in their order. */
  readonly attributes: readonly string[];
  /** OIDs of all requested extensions. */
  readonly extensions: readonly string[];
  readonly names: readonly GeneralName[];
  readonly keyUsages: readonly KeyUsage[] | undefined;
  readonly purposes: readonly string[] | undefined;
  readonly basicConstraints: { readonly ca: boolean } | undefined;
  readonly signatureAlgorithm: SignatureAlgorithm;
  /** Whether its own key signed it; undefined where no authority in use verifies the algorithm. */
  readonly signed: boolean | undefined;
}

const MAX_CSR_BYTES = 64 * 1024;

/**
 * Reads a request by its grammar alone.
 *
 * @throws AgentError ERR_PARSE with the field `csr ...`: no authority can read it.
 */
export function readAnyCsr(der: Uint8Array): CsrReading {
  const request = readCertificationRequest(der, MAX_CSR_BYTES);
  const { subject, publicKey, attributes, extensions, infoDer, signatureAlgorithm, signature } =
    request;
  const field = 'subject alternative name';
  return {
    subject,
    hasCommonName: subject.types.includes(COMMON_NAME),
    publicKey,
    attributes,
    extensions: extensions.map(({ oid }) => oid),
    names:
      readRequested(request, EXTENSION.subjectAltName, field, (san) =>
        readGeneralNames(san, field),
      ) ?? [],
    keyUsages: readRequested(request, EXTENSION.keyUsage, 'key usage', readKeyUsage),
    purposes: readRequested(
      request,
      EXTENSION.extendedKeyUsage,
      'extended key usage',
      readPurposes,
    ),
    basicConstraints: readRequested(
      request,
      EXTENSION.basicConstraints,
      'basic constraints',
      readBasicConstraints,
    ),
    signatureAlgorithm,
    signed: isSelfSigned(publicKey, signatureAlgorithm, infoDer, signature),
  };
}

/** Also with what authorities in Go verify of a request and our policy refuses: SHA-1, RSA-PSS and Ed25519 (crypto/x509, `CheckSignature`). */
function isSelfSigned(
  key: PublicKey,
  algorithm: SignatureAlgorithm,
  bytes: Uint8Array,
  signature: Uint8Array,
): boolean | undefined {
  const object = openSslKey(key);
  if (object === undefined) return false;
  if (algorithm.usable) return isSignatureValid(algorithm, bytes, signature, object);
  const type = object.asymmetricKeyType;
  switch (algorithm.text) {
    case 'Ed25519':
      return type === 'ed25519' && verify(null, bytes, object, signature);
    case 'RSA-SHA1':
    case 'ECDSA-SHA1':
      return (
        type === (algorithm.text === 'RSA-SHA1' ? 'rsa' : 'ec') &&
        verify('sha1', bytes, object, signature)
      );
    case 'RSA-PSS':
      return type === 'rsa' ? isPssValid(algorithm, bytes, signature, object) : false;
    default:
      return undefined;
  }
}

/** OIDs of SHA-256, SHA-384 and SHA-512, DER, with the octets of a salt: as many as of a digest. */
const PSS_HASHES = [
  { oidDer: Buffer.from('0609608648016503040201', 'hex'), hash: 'sha256', saltLength: 32 },
  { oidDer: Buffer.from('0609608648016503040202', 'hex'), hash: 'sha384', saltLength: 48 },
  { oidDer: Buffer.from('0609608648016503040203', 'hex'), hash: 'sha512', saltLength: 64 },
] as const;

function isPssValid(
  { der }: SignatureAlgorithm,
  bytes: Uint8Array,
  signature: Uint8Array,
  key: KeyObject,
): boolean | undefined {
  const found = PSS_HASHES.find(({ oidDer }) => Buffer.from(der).includes(oidDer));
  if (!found) return undefined;
  const { hash, saltLength } = found;
  return verify(
    hash,
    bytes,
    { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength },
    signature,
  );
}

/** As OpenSSL takes it, weak or not; undefined where it is no key at all, e.g. a point off its curve. */
function openSslKey(key: PublicKey): KeyObject | undefined {
  try {
    return createPublicKey({ key: Buffer.from(key.spkiDer), format: 'der', type: 'spki' });
  } catch {
    return undefined;
  }
}
