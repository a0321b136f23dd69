import { contextTag, type DerReader, derBitString, derElement, derInteger, derSequence, derTime, readDer, TAG } from '../base/der';
import type { Certificate } from './certificate';
import { EXTENSION, encodeExtension, readAuthorityKeyId, readExtensions } from './extensions';
import type { KeyPair } from './keys';
import { readName } from './name';
import { createKeyObject } from './public-key';
import { isSignatureValid, readSignatureAlgorithm, type SignatureAlgorithm, signatureAlgorithmOf, signBytes } from './signature';

/** What a certificate revocation list says, read strictly. It says nothing about whether to believe it: `isCrlOf` does. */
export interface Crl {
  readonly der: Uint8Array;
  readonly tbsDer: Uint8Array;
  readonly signatureAlgorithm: SignatureAlgorithm;
  readonly signature: Uint8Array;
  /** For people. */
  readonly issuer: string;
  readonly issuerDer: Uint8Array;
  readonly authorityKeyId: Uint8Array | undefined;
  /** Rises with each list of one issuer; lower-case hex, undefined where there is none. */
  readonly number: string | undefined;
  /** Epoch milliseconds. At `nextUpdateAt` it has had its day: verifiers refuse whatever it covers. */
  readonly thisUpdateAt: number;
  readonly nextUpdateAt: number;
  /** Serial numbers, lower-case hex as `Certificate.serial`. */
  readonly revoked: ReadonlySet<string>;
}

/** A list to be made. */
export interface CrlSpec {
  /** DER Name and key identifier of the signer, as its certificate has them. */
  readonly issuerDer: Uint8Array;
  readonly authorityKeyId: Uint8Array;
  readonly number: number;
  /** Epoch milliseconds, cut to the second. */
  readonly thisUpdateAt: number;
  readonly nextUpdateAt: number;
  readonly revoked: readonly RevokedSerial[];
}

export interface RevokedSerial {
  /** Lower-case hex in pairs. */
  readonly serial: string;
  readonly revokedAt: number;
  /** CRLReason; 0 (unspecified) is not written, as RFC 5280 section 5.3.1 wishes. */
  readonly reason: number;
}

const OID = { crlNumber: '2.5.29.20', reasonCode: '2.5.29.21', invalidityDate: '2.5.29.24' } as const;
const ENUMERATED = 0x0a;
/** 40 bytes an entry; whoever has more than this many certificates to revoke is better off with another root. */
const MAX_CRL_BYTES = 8 * 1024 * 1024;
const MAX_ENTRIES = 250_000;

/** Makes and signs a list, version 2. @see RFC 5280 section 5.1. */
export function createCrl(spec: CrlSpec, key: KeyPair): Uint8Array {
  const algorithmDer = signatureAlgorithmOf(key.algorithm).der;
  const extensions = derSequence(
    encodeExtension(EXTENSION.authorityKeyId, false, derSequence(derElement(contextTag(0, 'primitive'), spec.authorityKeyId))),
    encodeExtension(OID.crlNumber, false, derInteger(spec.number)),
  );
  const tbs = derSequence(
    derInteger(1),
    algorithmDer,
    spec.issuerDer,
    derTime(spec.thisUpdateAt),
    derTime(spec.nextUpdateAt),
    // Absent where it would be empty.
    ...(spec.revoked.length === 0 ? [] : [derSequence(...spec.revoked.map(revokedEntry))]),
    derElement(contextTag(0), extensions),
  );
  return derSequence(tbs, algorithmDer, derBitString(signBytes(tbs, key)));
}

function revokedEntry({ serial, revokedAt, reason }: RevokedSerial): Buffer {
  const extension = encodeExtension(OID.reasonCode, false, derElement(ENUMERATED, Buffer.of(reason)));
  return derSequence(derInteger(Buffer.from(serial, 'hex')), derTime(revokedAt), ...(reason === 0 ? [] : [derSequence(extension)]));
}

/**
 * Reads one list, DER, to the letter. Refused beside what breaks the grammar: a list without nextUpdate, which would be good for ever, and
 * critical extensions, which make a list say less or other than it seems to (deltas, partitions, entries of other issuers).
 *
 * @throws AgentError ERR_PARSE.
 * @see RFC 5280 section 5.
 */
export function parseCrl(der: Uint8Array, field = 'crl'): Crl {
  const read = (reader: DerReader) =>
    reader.sequence('', (outer) => {
      const tbs = outer.element('tbs', TAG.sequence);
      const signatureAlgorithm = readSignatureAlgorithm(outer, 'signature algorithm');
      const signature = outer.octetBits('signature');
      const { innerAlgorithmDer, ...facts } = outer.within('tbs', tbs.content, readTbs);
      if (Buffer.compare(innerAlgorithmDer, signatureAlgorithm.der) !== 0) {
        throw outer.refuse('signature algorithm', 'must be the same inside and outside');
      }
      return { der, tbsDer: tbs.der, signatureAlgorithm, signature, ...facts };
    });
  return readDer(der, field, read, MAX_CRL_BYTES);
}

function readTbs(tbs: DerReader) {
  const version = tbs.nextTag === TAG.integer ? tbs.smallInteger('version') : 0;
  if (version > 1) throw tbs.refuse('version', 'must be 1 or 2');
  const innerAlgorithmDer = tbs.element('signature algorithm', TAG.sequence).der;
  const issuer = readName(tbs, 'issuer');
  const thisUpdateAt = tbs.time('this update');
  if (tbs.nextTag !== TAG.utcTime && tbs.nextTag !== TAG.generalizedTime) throw tbs.refuse('next update', 'is missing');
  const nextUpdateAt = tbs.time('next update');
  if (nextUpdateAt <= thisUpdateAt) throw tbs.refuse('next update', 'must be later than this update');
  const entries = tbs.optional('revoked certificates', TAG.sequence, (inner) => inner.list('revoked certificates', MAX_ENTRIES, readEntry));
  const facts = tbs.optional('extensions', contextTag(0), readCrlExtensions) ?? { authorityKeyId: undefined, number: undefined };
  return {
    innerAlgorithmDer,
    issuer: issuer.text,
    issuerDer: issuer.der,
    thisUpdateAt,
    nextUpdateAt,
    revoked: new Set(entries),
    ...facts,
  };
}

function readEntry(reader: DerReader): string {
  return reader.sequence('revoked certificate', (inner) => {
    const serial = hexOf(inner.integer('serial number'));
    inner.time('revocation date');
    const extensions = inner.atEnd ? [] : readExtensions(inner);
    const critical = extensions.find((each) => each.critical && each.oid !== OID.reasonCode && each.oid !== OID.invalidityDate);
    if (critical) throw inner.refuse('revoked certificate', `must not have the critical extension ${critical.oid}`);
    return serial;
  });
}

function readCrlExtensions(reader: DerReader) {
  const extensions = readExtensions(reader);
  const find = (oid: string) => extensions.find((each) => each.oid === oid);
  const known: readonly string[] = [EXTENSION.authorityKeyId, OID.crlNumber];
  const critical = extensions.find((each) => each.critical && !known.includes(each.oid));
  if (critical) throw reader.refuse('extensions', `must not have the critical extension ${critical.oid}`);
  const [keyId, number] = [find(EXTENSION.authorityKeyId), find(OID.crlNumber)];
  return {
    authorityKeyId: keyId && reader.within('authority key identifier', keyId.value, readAuthorityKeyId),
    number: number && hexOf(reader.within('number', number.value, (inner) => inner.integer('number'))),
  };
}

function hexOf(octets: Uint8Array): string {
  return Buffer.from(octets.length > 1 && octets[0] === 0 ? octets.subarray(1) : octets).toString('hex');
}

/**
 * Whether the list is `issuer`'s: its name, its key identifier where both have one, allowed to sign lists where it has key usages, and its
 * key's signature. Whether to believe the issuer is the caller's to know.
 *
 * @see RFC 5280 section 6.3.3 (f) and (g).
 */
export function isCrlOf(crl: Crl, issuer: Certificate): boolean {
  if (Buffer.compare(crl.issuerDer, issuer.subjectDer) !== 0) return false;
  const [named, has] = [crl.authorityKeyId, issuer.subjectKeyId];
  if (named && has && Buffer.compare(named, has) !== 0) return false;
  if (issuer.keyUsage && !issuer.keyUsage.usages.includes('cRLSign')) return false;
  if (issuer.publicKey.weakness !== undefined) return false;
  return isSignatureValid(crl.signatureAlgorithm, crl.tbsDer, crl.signature, createKeyObject(issuer.publicKey));
}
