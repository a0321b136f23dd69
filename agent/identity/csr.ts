import { contextTag, type DerReader, readDer, TAG } from '../base/der';
import { invalid } from '../base/errors';
import type { Csr } from './engine';
import { EXTENSION, readExtensions, readGeneralNames } from './extensions';
import { COMMON_NAME, readName } from './name';
import { readPublicKey } from './public-key';
import { factorWeakness } from './rsa-factors';
import { readSignatureAlgorithm, type SignatureAlgorithm } from './signature';

/** A request as it reads, its signature not yet verified. */
export interface UnverifiedCsr {
  readonly facts: Csr;
  readonly spkiDer: Uint8Array;
  /** What is signed, with what, and the signature. */
  readonly infoDer: Uint8Array;
  readonly signatureAlgorithm: SignatureAlgorithm;
  readonly signature: Uint8Array;
}

/** A request for RSA-8192 with a subject and an identity of 2048 bytes fits four times. */
const MAX_CSR_BYTES = 16 * 1024;
const EXTENSION_REQUEST = '1.2.840.113549.1.9.14';

/**
 * Reads a PKCS#10 request, to the letter: DER without trailing bytes, no attribute or extension twice, a key that policy takes, a signature
 * algorithm that policy takes. Attributes other than extensionRequest, such as challengePassword, are passed over: nothing of them is used.
 *
 * @throws AgentError ERR_PARSE with the field `csr ...`.
 * @see RFC 2986 section 4; RFC 2985 section 5.4.2.
 */
export function parseCsr(der: Uint8Array): UnverifiedCsr {
  return readDer(
    der,
    'csr',
    (reader) =>
      reader.sequence('', (outer) => {
        const info = outer.element('info', TAG.sequence);
        const signatureAlgorithm = readSignatureAlgorithm(outer, 'signature algorithm');
        if (signatureAlgorithm.usable === undefined) {
          throw outer.refuse(
            'signature algorithm',
            `must be ECDSA or RSA with SHA-256, SHA-384 or SHA-512, not ${signatureAlgorithm.text}`,
          );
        }
        const signature = outer.octetBits('signature');
        if (signatureAlgorithm.usable.kind === 'ec') outer.within('signature', signature, readEcdsaSignature);
        const facts = outer.within('info', info.content, readInfo);
        return { facts, spkiDer: facts.spkiDer, infoDer: info.der, signatureAlgorithm, signature };
      }),
    MAX_CSR_BYTES,
  );
}

/** ECDSA-Sig-Value: OpenSSL refuses other spellings of the two numbers by itself, @peculiar/x509 does not. */
function readEcdsaSignature(signature: DerReader): void {
  signature.sequence('signature', (inner) => [inner.integer('signature'), inner.integer('signature')]);
}

function readInfo(info: DerReader): Csr {
  if (info.smallInteger('version') !== 0) throw info.refuse('version', 'must be 1');
  const subject = readName(info, 'subject');
  const publicKey = readPublicKey(info, 'public key');
  // Of a stranger's new key also what a certificate's key is not asked every time.
  const weakness = publicKey.weakness ?? (publicKey.modulus && factorWeakness(publicKey.modulus));
  if (weakness !== undefined) throw invalid('ERR_PARSE', 'csr public key', weakness);
  const extensions = info.enter('attributes', contextTag(0), readAttributes);
  const san = extensions.find(({ oid }) => oid === EXTENSION.subjectAltName);
  const names = san
    ? info.within('subject alternative name', san.value, (value) => readGeneralNames(value, 'subject alternative name'))
    : [];
  return {
    spkiDer: publicKey.spkiDer,
    uris: names.filter(({ kind }) => kind === 'uri').map(({ value }) => value),
    otherNames: names.filter(({ kind }) => kind !== 'uri').map(({ kind }) => kind),
    otherExtensions: extensions.filter(({ oid }) => oid !== EXTENSION.subjectAltName).map(({ oid }) => oid),
    subjectDer: subject.der,
    hasCommonName: subject.types.includes(COMMON_NAME),
  };
}

function readAttributes(attributes: DerReader) {
  const found = attributes.list('attributes', 16, (each) =>
    each.sequence('attribute', (attribute) => ({ oid: attribute.oid('attribute'), values: attribute.element('attribute', TAG.set) })),
  );
  if (new Set(found.map(({ oid }) => oid)).size !== found.length) throw attributes.refuse('attributes', 'must not repeat one');
  const request = found.find(({ oid }) => oid === EXTENSION_REQUEST);
  return request ? attributes.within('extension request', request.values.content, readExtensions) : [];
}
