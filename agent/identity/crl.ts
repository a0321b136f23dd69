import { createHash } from 'node:crypto';
import {
  contextTag,
  type DerElement,
  type DerReader,
  derBitString,
  derElement,
  derElementParts,
  derInteger,
  derSequence,
  derTime,
  readDer,
  TAG,
} from '../base/der';
import { AgentError } from '../base/errors';
import { writePemSteps } from '../base/pem';
import { inTurns, joinSteps, type Steps } from '../base/steps';
import { type Certificate, serialText } from './certificate';
import { MAX_CRL_ENTRIES, MAX_ENTRY_BYTES } from './crl-bounds';
import { encodeEntries, type RevokedSerial, type RevokedSerials, readEntries } from './crl-entries';
import {
  EXTENSION,
  type Extension,
  encodeExtension,
  readAuthorityKey,
  readExtensions,
} from './extensions';
import type { KeyPair } from './keys';
import { readName } from './name';
import { createKeyObject } from './public-key';
import {
  isSignatureValid,
  readSignatureAlgorithm,
  type SignatureAlgorithm,
  signAside,
  signatureAlgorithmOf,
} from './signature';

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
  readonly revoked: RevokedSerials;
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

const OID = {
  crlNumber: '2.5.29.20',
  deltaCrl: '2.5.29.27',
  issuingDistributionPoint: '2.5.29.28',
} as const;
/** An IssuingDistributionPoint that says onlyContainsUserCerts and nothing else: such a list says all that there is about leaves. */
const ONLY_USER_CERTS = Buffer.from([0x30, 0x03, 0x81, 0x01, 0xff]);
/** With what is around the entries. */
const MAX_CRL_BYTES = MAX_CRL_ENTRIES * MAX_ENTRY_BYTES + 64 * 1024;
/** A file of lists: two of the longest as PEM. */
export const MAX_CRL_FILE_BYTES = 3 * MAX_CRL_BYTES;
const HASHED_PER_STEP = 1024 * 1024;

/**
 * Makes and signs a list, version 2. Lets others run in between.
 *
 * @throws AgentError ERR_CA_STATE for more than `MAX_CRL_ENTRIES`.
 * @see RFC 5280 section 5.1.
 */
export async function createCrl(spec: CrlSpec, key: KeyPair): Promise<Uint8Array> {
  if (spec.revoked.length > MAX_CRL_ENTRIES) {
    throw new AgentError(
      'ERR_CA_STATE',
      `sign a CRL: ${spec.revoked.length} certificates are revoked, and it holds ${MAX_CRL_ENTRIES}`,
      {
        hint: 'replace the root of all of them: keyturn ca root add, activate, retire --force',
      },
    );
  }
  const algorithmDer = signatureAlgorithmOf(key.algorithm).der;
  const extensions = derSequence(
    encodeExtension(
      EXTENSION.authorityKeyId,
      false,
      derSequence(derElement(contextTag(0, 'primitive'), spec.authorityKeyId)),
    ),
    encodeExtension(OID.crlNumber, false, derInteger(spec.number)),
  );
  const entries = await inTurns(encodeEntries(spec.revoked));
  const tbs = await inTurns(
    joinSteps(
      derElementParts(
        TAG.sequence,
        derInteger(1),
        algorithmDer,
        spec.issuerDer,
        derTime(spec.thisUpdateAt),
        derTime(spec.nextUpdateAt),
        // Absent where it would be empty.
        ...(entries.length === 0 ? [] : derElementParts(TAG.sequence, entries)),
        derElement(contextTag(0), extensions),
      ),
    ),
  );
  const signature = derBitString(await signAside(tbs, key));
  return inTurns(joinSteps(derElementParts(TAG.sequence, tbs, algorithmDer, signature)));
}

/**
 * Reads one list, DER, of any length, to the letter. Refused beside what breaks the grammar: a list without nextUpdate, which would be good for
 * ever. As `refusal`, beside what else it says, and as Envoy does, what makes a list say less or other than it seems to: critical extensions,
 * of an entry too, deltas, and an IssuingDistributionPoint (of partitions, reasons, other issuers, CAs alone), critical or not. One for user
 * certificates alone is taken.
 *
 * @throws AgentError ERR_PARSE.
 * @see RFC 5280 section 5.
 */
export function* readCrlSteps(
  der: Uint8Array,
  field: string,
): Steps<Crl & { readonly refusal: AgentError | undefined }> {
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
  const { listed, ...facts } = readDer(der, field, read, MAX_CRL_BYTES);
  const { revoked, refusal } = yield* readEntries(listed, der, field);
  return { ...facts, revoked, refusal: facts.refusal ?? refusal };
}

function readTbs(tbs: DerReader) {
  const version = tbs.nextTag === TAG.integer ? tbs.smallInteger('version') : 0;
  if (version > 1) throw tbs.refuse('version', 'must be 1 or 2');
  const innerAlgorithmDer = tbs.element('signature algorithm', TAG.sequence).der;
  const issuer = readName(tbs, 'issuer');
  const thisUpdateAt = tbs.time('this update');
  if (tbs.nextTag !== TAG.utcTime && tbs.nextTag !== TAG.generalizedTime)
    throw tbs.refuse('next update', 'is missing');
  const nextUpdateAt = tbs.time('next update');
  if (nextUpdateAt <= thisUpdateAt)
    throw tbs.refuse('next update', 'must be later than this update');
  const listed = listedIn(tbs);
  if (version === 0 && !tbs.atEnd)
    throw tbs.refuse('version', 'must be 2 where there are extensions');
  const facts = tbs.optional('extensions', contextTag(0), readCrlExtensions) ?? NO_EXTENSIONS;
  return {
    innerAlgorithmDer,
    issuer: issuer.text,
    issuerDer: issuer.der,
    thisUpdateAt,
    nextUpdateAt,
    listed,
    ...facts,
  };
}

/** Read later, in steps. */
function listedIn(tbs: DerReader): DerElement | undefined {
  return tbs.nextTag === TAG.sequence
    ? tbs.element('revoked certificates', TAG.sequence)
    : undefined;
}

const NO_EXTENSIONS = {
  authorityKeyId: undefined,
  authoritySerial: undefined,
  number: undefined,
  refusal: undefined,
};

function readCrlExtensions(reader: DerReader) {
  const extensions = readExtensions(reader);
  if (extensions.length === 0) throw reader.refuse('extensions', 'must not be empty');
  const find = (oid: string) => extensions.find((each) => each.oid === oid);
  const [keyId, number] = [find(EXTENSION.authorityKeyId), find(OID.crlNumber)];
  const rule = extensionsRule(extensions);
  const authority =
    keyId && reader.within('authority key identifier', keyId.value, readAuthorityKey);
  return {
    authorityKeyId: authority?.keyId,
    authoritySerial: authority?.serial && serialText(authority.serial),
    number:
      number &&
      serialText(reader.within('number', number.value, (inner) => inner.integer('number'))),
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
  const known: readonly string[] = [EXTENSION.authorityKeyId, OID.issuingDistributionPoint];
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
  if (!couldBeCrlOf(crl, issuer)) return false;
  const { signatureAlgorithm, tbsDer, signature } = crl;
  const answer =
    answersOf(crl).get(keyOf(issuer)) ??
    isSignatureValid(signatureAlgorithm, tbsDer, signature, createKeyObject(issuer.publicKey));
  rememberSignature(crl, issuer, answer);
  return answer;
}

/** Whether which key has signed a list: one of tens of megabytes takes long to hash. */
const signatures = new WeakMap<Crl, Map<string, boolean>>();

/** Tells `isCrlOf` what another has found out about a signature. */
export function rememberSignature(crl: Crl, issuer: Certificate, isValid: boolean): void {
  signatures.set(crl, answersOf(crl).set(keyOf(issuer), isValid));
}

function answersOf(crl: Crl): Map<string, boolean> {
  return signatures.get(crl) ?? new Map();
}

function keyOf({ publicKey }: Certificate): string {
  return Buffer.from(publicKey.spkiDer).toString('latin1');
}

/** As `isCrlOf`, its signature aside. */
export function couldBeCrlOf(crl: Crl, issuer: Certificate): boolean {
  if (Buffer.compare(crl.issuerDer, issuer.subjectDer) !== 0) return false;
  const [named, has] = [crl.authorityKeyId, issuer.subjectKeyId];
  if (named && has && Buffer.compare(named, has) !== 0) return false;
  if (issuer.keyUsage && !issuer.keyUsage.usages.includes('cRLSign')) return false;
  return issuer.publicKey.weakness === undefined;
}

/** Lists that passed `acceptCrls`, replaced as one. */
export interface CrlSet {
  readonly lists: readonly Crl[];
  /** Each of them, PEM. */
  readonly pems: readonly Buffer[];
  /** The lists and nothing else, PEM, as a proxy takes them. */
  readonly pem: Buffer;
  /** When the first of them has had its day, epoch milliseconds. */
  readonly nextUpdateAt: number;
  /** When the last of them was made. */
  readonly thisUpdateAt: number;
  /** SHA-256 over those of the lists, hex. */
  readonly version: string;
}

/** The text of a list and its SHA-256: made once, for a list of megabytes stays in use while others beside it change. */
interface CrlText {
  readonly pem: Buffer;
  readonly sha256: Buffer;
}

const texts = new WeakMap<Crl, CrlText>();

function* textOf(crl: Crl): Steps<CrlText> {
  const known = texts.get(crl);
  if (known !== undefined) return known;
  const pem = yield* writePemSteps('X509 CRL', crl.der);
  const hash = createHash('sha256');
  for (let at = 0; at < crl.der.length; at += HASHED_PER_STEP) {
    hash.update(crl.der.subarray(at, at + HASHED_PER_STEP));
    yield;
  }
  const text = { pem, sha256: hash.digest() };
  texts.set(crl, text);
  return text;
}

/** These lists as one value; at least one. */
export function* crlSetSteps(lists: readonly Crl[]): Steps<CrlSet> {
  const written: CrlText[] = [];
  for (const each of lists) written.push(yield* textOf(each));
  const pems = written.map(({ pem }) => pem);
  return {
    lists,
    pems,
    pem: pems.length === 1 ? pems[0]! : yield* joinSteps(pems),
    nextUpdateAt: Math.min(...lists.map(({ nextUpdateAt }) => nextUpdateAt)),
    thisUpdateAt: Math.max(...lists.map(({ thisUpdateAt }) => thisUpdateAt)),
    version: createHash('sha256')
      .update(Buffer.concat(written.map(({ sha256 }) => sha256)))
      .digest('hex'),
  };
}
