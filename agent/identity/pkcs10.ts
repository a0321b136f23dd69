import { contextTag, DerReader, readDer, TAG } from '../base/der';
import { type Extension, readExtensions } from './extensions';
import { type Name, readName } from './name';
import { type PublicKey, readPublicKey } from './public-key';
import { readSignatureAlgorithm, type SignatureAlgorithm } from './signature';

/** A certification request by its grammar alone: no rule of anybody's has been applied, and the signature is not verified. */
export interface CertificationRequest {
  /** As it is written: 0 is the only one there is. */
  readonly version: number;
  readonly subject: Name;
  readonly publicKey: PublicKey;
  /** OIDs, in their order; grammar alone lets one stand twice. */
  readonly attributes: readonly string[];
  /** Those that are asked for; no OID twice. */
  readonly extensions: readonly Extension[];
  /** What is signed, with what, and the signature. */
  readonly infoDer: Uint8Array;
  readonly signatureAlgorithm: SignatureAlgorithm;
  readonly signature: Uint8Array;
}

/** The attributes of PKCS#9 (RFC 2985 section 5.4) whose meaning is known here. */
export const ATTRIBUTE = {
  challengePassword: '1.2.840.113549.1.9.7',
  extensionRequest: '1.2.840.113549.1.9.14',
} as const;

const MAX_ATTRIBUTES = 16;

/**
 * Reads a PKCS#10 request: DER without trailing bytes. Of attributes other than extensionRequest the type is kept, and nothing else.
 *
 * @throws AgentError ERR_PARSE with the field `csr ...`.
 * @see RFC 2986 section 4; RFC 2985 section 5.4.2.
 */
export function readCertificationRequest(der: Uint8Array, maxBytes: number): CertificationRequest {
  const read = (outer: DerReader): CertificationRequest => {
    const info = outer.element('info', TAG.sequence);
    const signatureAlgorithm = readSignatureAlgorithm(outer, 'signature algorithm');
    const signature = outer.octetBits('signature');
    return {
      ...outer.within('info', info.content, readInfo),
      infoDer: info.der,
      signatureAlgorithm,
      signature,
    };
  };
  return readDer(der, 'csr', (reader) => reader.sequence('', read), maxBytes);
}

/**
 * The value of an extension that is asked for, or undefined.
 *
 * @param name  For errors, e.g. `key usage`.
 */
export function readRequested<T>(
  { extensions }: CertificationRequest,
  oid: string,
  name: string,
  read: (value: DerReader) => T,
): T | undefined {
  const found = extensions.find((each) => each.oid === oid);
  return found && readInside(name, found.value, read);
}

/** DER that stands inside another value of the request, under the same field. */
export function readInside<T>(name: string, content: Uint8Array, read: (inner: DerReader) => T): T {
  return new DerReader(content, 'csr').within(name, content, read);
}

function readInfo(info: DerReader) {
  const version = info.smallInteger('version');
  const subject = readName(info, 'subject');
  const publicKey = readPublicKey(info, 'public key');
  const attributes = info.enter('attributes', contextTag(0), (inner) =>
    inner.list('attributes', MAX_ATTRIBUTES, readAttribute),
  );
  const asked = attributes.find(({ oid }) => oid === ATTRIBUTE.extensionRequest);
  const extensions = asked ? info.within('extension request', asked.content, readExtensions) : [];
  return { version, subject, publicKey, attributes: attributes.map(({ oid }) => oid), extensions };
}

function readAttribute(attributes: DerReader) {
  return attributes.sequence('attribute', (inner) => ({
    oid: inner.oid('attribute'),
    content: inner.element('attribute', TAG.set).content,
  }));
}
