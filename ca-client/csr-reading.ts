import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { contextTag, type DerReader, readDer, TAG } from '../agent/base/der';
import {
  EXTENSION,
  type GeneralName,
  type KeyUsage,
  readBasicConstraints,
  readExtensions,
  readGeneralNames,
  readKeyUsage,
  readPurposes,
} from '../agent/identity/extensions';
import { COMMON_NAME, type Name, readName } from '../agent/identity/name';
import { type PublicKey, readPublicKey } from '../agent/identity/public-key';
import { isSignatureValid, readSignatureAlgorithm, type SignatureAlgorithm } from '../agent/identity/signature';

/** What a PKCS#10 request says, also where our own policy would refuse it: other authorities are more lenient, or refuse other things. */
export interface CsrReading {
  readonly subject: Name;
  readonly hasCommonName: boolean;
  readonly publicKey: PublicKey;
  /** OIDs of all requested extensions. */
  readonly extensions: readonly string[];
  readonly names: readonly GeneralName[];
  readonly keyUsages: readonly KeyUsage[] | undefined;
  readonly purposes: readonly string[] | undefined;
  readonly basicConstraints: { readonly ca: boolean } | undefined;
  readonly signatureAlgorithm: SignatureAlgorithm;
  /** Undefined where the algorithm is none that is verified here. */
  readonly signed: boolean | undefined;
}

const EXTENSION_REQUEST = '1.2.840.113549.1.9.14';
const MAX_CSR_BYTES = 64 * 1024;

/**
 * Reads a request by its grammar alone.
 *
 * @throws AgentError ERR_PARSE with the field `csr ...`: no authority can read it.
 */
export function readAnyCsr(der: Uint8Array): CsrReading {
  return readDer(
    der,
    'csr',
    (reader) =>
      reader.sequence('', (outer) => {
        const info = outer.element('info', TAG.sequence);
        const signatureAlgorithm = readSignatureAlgorithm(outer, 'signature algorithm');
        const signature = outer.octetBits('signature');
        const facts = outer.within('info', info.content, readInfo);
        return { ...facts, signatureAlgorithm, signed: isSelfSigned(facts.publicKey, signatureAlgorithm, info.der, signature) };
      }),
    MAX_CSR_BYTES,
  );
}

function readInfo(info: DerReader): Omit<CsrReading, 'signatureAlgorithm' | 'signed'> {
  info.smallInteger('version');
  const subject = readName(info, 'subject');
  const publicKey = readPublicKey(info, 'public key');
  const extensions = info.enter('attributes', contextTag(0), readRequested);
  const value = <T>(oid: string, name: string, read: (reader: DerReader) => T): T | undefined => {
    const found = extensions.find((each) => each.oid === oid);
    return found && info.within(name, found.value, read);
  };
  return {
    subject,
    hasCommonName: subject.types.includes(COMMON_NAME),
    publicKey,
    extensions: extensions.map(({ oid }) => oid),
    names: value(EXTENSION.subjectAltName, 'subject alternative name', (san) => readGeneralNames(san, 'subject alternative name')) ?? [],
    keyUsages: value(EXTENSION.keyUsage, 'key usage', readKeyUsage),
    purposes: value(EXTENSION.extendedKeyUsage, 'extended key usage', readPurposes),
    basicConstraints: value(EXTENSION.basicConstraints, 'basic constraints', readBasicConstraints),
  };
}

function readRequested(attributes: DerReader) {
  const found = attributes.list('attributes', 16, (each) =>
    each.sequence('attribute', (attribute) => ({ oid: attribute.oid('attribute'), values: attribute.element('attribute', TAG.set) })),
  );
  const request = found.find(({ oid }) => oid === EXTENSION_REQUEST);
  return request ? attributes.within('extension request', request.values.content, readExtensions) : [];
}

function isSelfSigned(key: PublicKey, algorithm: SignatureAlgorithm, bytes: Uint8Array, signature: Uint8Array): boolean | undefined {
  const object = openSslKey(key);
  if (object === undefined) return false;
  if (object.asymmetricKeyType === 'ed25519') return verify(null, bytes, object, signature);
  return algorithm.usable && isSignatureValid(algorithm, bytes, signature, object);
}

/** As OpenSSL takes it, weak or not; undefined where it is no key at all, e.g. a point off its curve. */
function openSslKey(key: PublicKey): KeyObject | undefined {
  try {
    return createPublicKey({ key: Buffer.from(key.spkiDer), format: 'der', type: 'spki' });
  } catch {
    return undefined;
  }
}
