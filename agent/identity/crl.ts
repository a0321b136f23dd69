import { createHash } from 'node:crypto';
import { contextTag, type DerReader, derBitString, derElement, derInteger, derSequence, derTime, readDer, TAG } from '../base/der';
import { AgentError, invalid } from '../base/errors';
import { readPem, writePem } from '../base/pem';
import { type Certificate, isCa, parseCertificate, serialText } from './certificate';
import { SKEW_TOLERANCE_MS, verifyChain } from './chain';
import { EXTENSION, type Extension, encodeExtension, readAuthorityKey, readExtensions } from './extensions';
import type { KeyPair } from './keys';
import { readName } from './name';
import { createKeyObject } from './public-key';
import { isSignatureValid, readSignatureAlgorithm, type SignatureAlgorithm, signatureAlgorithmOf, signBytes } from './signature';
import type { TrustBundle } from './trust-bundle';

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
  /** The serial number of its signer's certificate where the extension names it, as `Certificate.serial`. */
  readonly authoritySerial: string | undefined;
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

const OID = {
  crlNumber: '2.5.29.20',
  reasonCode: '2.5.29.21',
  invalidityDate: '2.5.29.24',
  deltaCrl: '2.5.29.27',
  issuingDistributionPoint: '2.5.29.28',
} as const;
/** An IssuingDistributionPoint that says onlyContainsUserCerts and nothing else: such a list says all that there is about leaves. */
const ONLY_USER_CERTS = Buffer.from([0x30, 0x03, 0x81, 0x01, 0xff]);
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
 * Reads one list, DER, to the letter. Refused beside what breaks the grammar: a list without nextUpdate, which would be good for ever; and,
 * as Envoy does, what makes a list say less or other than it seems to: critical extensions that are not known, deltas, and an
 * IssuingDistributionPoint (of partitions, reasons, other issuers, CAs alone), critical or not. One for user certificates alone is taken.
 *
 * @throws AgentError ERR_PARSE.
 * @see RFC 5280 section 5.
 */
export function parseCrl(der: Uint8Array, field = 'crl'): Crl {
  const { refusal, ...crl } = readCrl(der, field);
  if (refusal) throw refusal;
  return crl;
}

/** As `parseCrl`, with what its extensions are refused for beside what else it says. */
function readCrl(der: Uint8Array, field: string): Crl & { readonly refusal: AgentError | undefined } {
  const read = (reader: DerReader) =>
    reader.sequence('', (outer) => {
      const tbs = outer.element('tbs', TAG.sequence);
      const signatureAlgorithm = readSignatureAlgorithm(outer, 'signature algorithm');
      const signature = outer.octetBits('signature');
      const { innerAlgorithmDer, ...facts } = outer.inside('tbs', tbs, readTbs);
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
  const facts = tbs.optional('extensions', contextTag(0), readCrlExtensions) ?? NO_EXTENSIONS;
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
    const serial = serialText(inner.integer('serial number'));
    inner.time('revocation date');
    const extensions = inner.atEnd ? [] : readExtensions(inner);
    const critical = extensions.find((each) => each.critical && each.oid !== OID.reasonCode && each.oid !== OID.invalidityDate);
    if (critical) throw inner.refuse('revoked certificate', `must not have the critical extension ${critical.oid}`);
    return serial;
  });
}

const NO_EXTENSIONS = { authorityKeyId: undefined, authoritySerial: undefined, number: undefined, refusal: undefined };

function readCrlExtensions(reader: DerReader) {
  const extensions = readExtensions(reader);
  const find = (oid: string) => extensions.find((each) => each.oid === oid);
  const [keyId, number] = [find(EXTENSION.authorityKeyId), find(OID.crlNumber)];
  const rule = extensionsRule(extensions);
  const authority = keyId && reader.within('authority key identifier', keyId.value, readAuthorityKey);
  return {
    authorityKeyId: authority?.keyId,
    authoritySerial: authority?.serial && serialText(authority.serial),
    number: number && serialText(reader.within('number', number.value, (inner) => inner.integer('number'))),
    refusal: rule === undefined ? undefined : reader.refuse('extensions', rule),
  };
}

function extensionsRule(extensions: readonly Extension[]): string | undefined {
  const has = (oid: string) => extensions.some((each) => each.oid === oid);
  if (has(OID.deltaCrl)) return `must not have the extension DeltaCRLIndicator (${OID.deltaCrl})`;
  const scope = extensions.find(({ oid }) => oid === OID.issuingDistributionPoint);
  if (scope && Buffer.compare(scope.value, ONLY_USER_CERTS) !== 0) {
    const what = `the extension IssuingDistributionPoint (${OID.issuingDistributionPoint})`;
    return `must not have ${what}, unless it says onlyContainsUserCerts and nothing else`;
  }
  const known: readonly string[] = [EXTENSION.authorityKeyId, OID.crlNumber, OID.issuingDistributionPoint];
  const critical = extensions.find((each) => each.critical && !known.includes(each.oid));
  return critical && `must not have the critical extension ${critical.oid}`;
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

/** Lists that passed `acceptCrls`, replaced as one. */
export interface CrlSet {
  readonly lists: readonly Crl[];
  /** The lists and nothing else, PEM, as a proxy takes them. */
  readonly pem: Buffer;
  /** When the first of them has had its day, epoch milliseconds. */
  readonly nextUpdateAt: number;
  /** When the last of them was made. */
  readonly thisUpdateAt: number;
  /** SHA-256 over `pem`, hex. */
  readonly version: string;
}

const MAX_LISTS = 64;

/** Whose lists count. */
export interface CrlSigners {
  readonly bundle: TrustBundle;
  /** The certificates that are served above our leaf: its issuers, DER. */
  readonly chainDer: readonly Uint8Array[];
}

/** What a file of lists comes to. */
export interface AcceptedCrls {
  readonly set: CrlSet;
  /** Lists that do not count, each with its rule. */
  readonly skipped: readonly string[];
  /** Those of them that have an extension which no list may have here: somebody has to act. */
  readonly unusable: readonly string[];
}

/**
 * Validates a file of lists: PEM with certificates of their signers beside them, or one list as DER. A list counts where its signer is a root
 * of the bundle, or verifies to one and is served with our leaf or stands in the file. Others are passed over with their reason, each for
 * itself: while roots are being replaced there are lists of signers that not every agent knows yet.
 *
 * @param now    Epoch milliseconds; what was made later, or has had its day, does not count.
 * @param inUse  What passed before: a list is not replaced by an older one of the same signer, since replicas of a CA make theirs at
 *               different times, and who can replay an old list could take a revocation back. Nor by one of the same signer that is refused.
 * @throws     AgentError ERR_PARSE with field and rule where none counts.
 */
export function acceptCrls(bytes: Uint8Array, field: string, signers: CrlSigners, now: number, inUse?: CrlSet): AcceptedCrls {
  const { listsDer, certificatesDer } = readBlocks(bytes, field);
  const issuers = readIssuers(signers, certificatesDer, field, now);
  const outcomes = listsDer.map((der) => acceptCrl(der, field, issuers, now, inUse));
  const refused = outcomes.flatMap(({ refusal }) => refusal ?? []);
  if (refused.length === outcomes.length) throw refused[0] ?? invalid('ERR_PARSE', field, 'must hold a certificate revocation list');
  const lists = new Set(outcomes.flatMap(({ list }) => list ?? []));
  const messages = (of: readonly CrlOutcome[]) => of.flatMap(({ refusal }) => refusal?.message ?? []);
  return { set: crlSetOf([...lists]), skipped: messages(outcomes), unusable: messages(outcomes.filter(({ isUnusable }) => isUnusable)) };
}

/** @throws AgentError ERR_PARSE for a certificate of the file that is malformed. */
function readIssuers({ bundle, chainDer }: CrlSigners, beside: readonly Uint8Array[], field: string, now: number): Certificate[] {
  const roots = bundle.rootsDer.map((der) => parseCertificate(der));
  const pool = [...chainDer, ...beside].map((der) => parseCertificate(der, field)).filter(isCa);
  return [...roots, ...pool.filter((each) => verifies(each, pool, roots, now))];
}

interface CrlOutcome {
  readonly list: Crl | undefined;
  readonly refusal?: AgentError;
  readonly isUnusable?: boolean;
}

/** The list, or one of the same signer that is in use: where that is newer, or this one is refused. */
function acceptCrl(der: Uint8Array, field: string, issuers: readonly Certificate[], now: number, inUse: CrlSet | undefined): CrlOutcome {
  let crl: ReturnType<typeof readCrl>;
  try {
    crl = readCrl(der, field);
  } catch (caught) {
    return { list: undefined, refusal: AgentError.from(caught), isUnusable: true };
  }
  const { refusal, ...list } = crl;
  const known = inUse?.lists.find((each) => isSameIssuer(each, list));
  const refuse = (rule: string) => ({
    list: known,
    refusal: invalid('ERR_PARSE', `${field}: list of ${list.issuer || 'an issuer without a name'}`, rule),
  });
  if (!issuers.some((issuer) => isCrlOf(list, issuer))) return refuse('must be signed by a CA of the trust bundle or of the served chain');
  if (refusal) return { ...refuse(refusal.rule ?? refusal.message), isUnusable: true };
  if (list.thisUpdateAt > now + SKEW_TOLERANCE_MS) return refuse(`must not be of the future: it was made at ${iso(list.thisUpdateAt)}`);
  if (list.nextUpdateAt <= now) return refuse(`must not be out of date: its next update was due at ${iso(list.nextUpdateAt)}`);
  return { list: known && known.thisUpdateAt > list.thisUpdateAt ? known : list };
}

/** These lists as one value; at least one. */
export function crlSetOf(lists: readonly Crl[]): CrlSet {
  const pem = Buffer.concat(lists.map(({ der }) => writePem('X509 CRL', der)));
  return {
    lists,
    pem,
    nextUpdateAt: Math.min(...lists.map(({ nextUpdateAt }) => nextUpdateAt)),
    thisUpdateAt: Math.max(...lists.map(({ thisUpdateAt }) => thisUpdateAt)),
    version: createHash('sha256').update(pem).digest('hex'),
  };
}

function readBlocks(bytes: Uint8Array, field: string): { listsDer: Uint8Array[]; certificatesDer: Uint8Array[] } {
  if (bytes[0] === TAG.sequence) return { listsDer: [bytes], certificatesDer: [] };
  const blocks = readPem(bytes, field, { maxBytes: 2 * MAX_CRL_BYTES, maxBlocks: MAX_LISTS });
  const foreign = blocks.find(({ label }) => label !== 'X509 CRL' && label !== 'CERTIFICATE');
  if (foreign) {
    for (const { der } of blocks) der.fill(0);
    throw invalid('ERR_PARSE', field, `must hold X509 CRL and CERTIFICATE only, not ${foreign.label}`);
  }
  const labelled = (wanted: string) => blocks.filter(({ label }) => label === wanted).map(({ der }) => der);
  return { listsDer: labelled('X509 CRL'), certificatesDer: labelled('CERTIFICATE') };
}

function verifies(certificate: Certificate, pool: readonly Certificate[], roots: readonly Certificate[], now: number): boolean {
  try {
    verifyChain(certificate, pool, roots, now);
    return true;
  } catch {
    return false;
  }
}

function isSameIssuer(one: Crl, other: Crl): boolean {
  const keyId = (crl: Crl) => crl.authorityKeyId ?? new Uint8Array(0);
  return Buffer.compare(one.issuerDer, other.issuerDer) === 0 && Buffer.compare(keyId(one), keyId(other)) === 0;
}

const iso = (at: number) => new Date(at).toISOString();
