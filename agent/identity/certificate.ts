import { hash } from 'node:crypto';
import { contextTag, type DerReader, readDer, TAG } from '../base/der';
import { type AgentError, errorText, invalid } from '../base/errors';
import { type PemBlock, readPem, scanPem, writePem } from '../base/pem';
import {
  EXTENSION,
  type Extension,
  type GeneralName,
  type KeyUsage,
  type NameConstraints,
  readAuthorityKey,
  readBasicConstraints,
  readExtensions,
  readGeneralNames,
  readKeyUsage,
  readNameConstraints,
  readPurposes,
} from './extensions';
import { type Name, readName } from './name';
import { type PublicKey, readPublicKey } from './public-key';
import { readSignatureAlgorithm, type SignatureAlgorithm } from './signature';
import { createTrustBundle, type TrustBundle } from './trust-bundle';

/** What a certificate says, read strictly. It says nothing about whether to believe it: `verifyChain` and `acceptIssuedChain` do. */
export interface Certificate {
  readonly der: Uint8Array;
  /** SHA-256 over the DER, lower-case hex. */
  readonly sha256: string;
  /** What is signed, with what, and the signature. */
  readonly tbsDer: Uint8Array;
  readonly signatureAlgorithm: SignatureAlgorithm;
  readonly signature: Uint8Array;
  /** Lower-case hex without leading zeros in pairs, as `openssl x509 -serial` prints it but for case; never negative. */
  readonly serial: string;
  /** Texts for people, e.g. `O=cluster.local`; names are compared by their DER. */
  readonly issuer: string;
  readonly subject: string;
  readonly issuerDer: Uint8Array;
  readonly subjectDer: Uint8Array;
  /** Epoch milliseconds. */
  readonly notBeforeAt: number;
  readonly notAfterAt: number;
  readonly publicKey: PublicKey;
  /** Undefined where the extension is absent. */
  readonly basicConstraints:
    | { readonly ca: boolean; readonly pathLength: number | undefined }
    | undefined;
  readonly keyUsage:
    | { readonly usages: readonly KeyUsage[]; readonly critical: boolean }
    | undefined;
  /** OIDs. */
  readonly extendedKeyUsage: readonly string[] | undefined;
  readonly subjectAltName:
    | { readonly names: readonly GeneralName[]; readonly critical: boolean }
    | undefined;
  readonly authorityKeyId: Uint8Array | undefined;
  /** The serial number of the issuer's certificate where the extension names it, as `serial`. */
  readonly authoritySerial: string | undefined;
  readonly subjectKeyId: Uint8Array | undefined;
  readonly nameConstraints: NameConstraints | undefined;
  /** As they stand, for what only some verifiers look at. */
  readonly extensions: readonly Extension[];
  /** OIDs of critical extensions that nothing here understands: whoever relies on the certificate must refuse it. */
  readonly unknownCritical: readonly string[];
}

/**
 * Reads one certificate, DER, to the letter: no BER, no trailing bytes, no repeated extension, no negative serial or one beyond 20 octets,
 * equal signature algorithms inside and out.
 *
 * @throws AgentError ERR_PARSE.
 * @see RFC 5280 section 4.1.
 */
export function parseCertificate(der: Uint8Array, field = 'certificate'): Certificate {
  return readDer(der, field, (reader) =>
    reader.sequence('', (outer) => {
      const tbs = outer.element('tbs', TAG.sequence);
      const signatureAlgorithm = readSignatureAlgorithm(outer, 'signature algorithm');
      const signature = outer.octetBits('signature');
      const facts = outer.inside('tbs', tbs, readTbs);
      if (Buffer.compare(facts.innerAlgorithmDer, signatureAlgorithm.der) !== 0) {
        throw outer.refuse('signature algorithm', 'must be the same inside and outside');
      }
      const { innerAlgorithmDer: _, ...rest } = facts;
      return {
        der,
        sha256: hash('sha256', der, 'hex'),
        tbsDer: tbs.der,
        signatureAlgorithm,
        signature,
        ...rest,
      };
    }),
  );
}

function readTbs(tbs: DerReader) {
  const version =
    tbs.optional('version', contextTag(0), (inner) => inner.smallInteger('version')) ?? 0;
  const serial = readSerial(tbs);
  const innerAlgorithmDer = tbs.element('signature algorithm', TAG.sequence).der;
  const issuer = readName(tbs, 'issuer');
  const validity = tbs.sequence('validity', (inner) => ({
    notBeforeAt: inner.time('not before'),
    notAfterAt: inner.time('not after'),
  }));
  const subject = readName(tbs, 'subject');
  const publicKey = readPublicKey(tbs, 'public key');
  for (const tag of [contextTag(1, 'primitive'), contextTag(2, 'primitive')])
    if (tbs.nextTag === tag) tbs.bitString('unique identifier', tag);
  const extensions = tbs.optional('extensions', contextTag(3), readExtensions) ?? [];
  if (version > 2 || (extensions.length > 0 && version < 2))
    throw tbs.refuse('version', 'must be 3 where there are extensions');
  return {
    serial,
    innerAlgorithmDer,
    ...namePair(issuer, subject),
    ...validity,
    publicKey,
    ...readKnown(tbs, extensions),
  };
}

const namePair = (issuer: Name, subject: Name) => ({
  issuer: issuer.text,
  subject: subject.text,
  issuerDer: issuer.der,
  subjectDer: subject.der,
});

function readSerial(tbs: DerReader): string {
  const octets = tbs.integer('serial number');
  if (octets[0]! >= 0x80) throw tbs.refuse('serial number', 'must not be negative');
  if (octets.length > 20) throw tbs.refuse('serial number', 'must not be longer than 20 octets');
  return serialText(octets);
}

/** The octets of an INTEGER, none negative, as `Certificate.serial`. */
export function serialText(octets: Uint8Array): string {
  return Buffer.from(octets.length > 1 && octets[0] === 0 ? octets.subarray(1) : octets).toString(
    'hex',
  );
}

const KNOWN: ReadonlySet<string> = new Set(Object.values(EXTENSION));

function readKnown(tbs: DerReader, extensions: readonly Extension[]) {
  const find = (oid: string) => extensions.find((extension) => extension.oid === oid);
  const read = <T>(oid: string, name: string, reader: (value: DerReader) => T): T | undefined => {
    const found = find(oid);
    return found && tbs.within(name, found.value, reader);
  };
  const usages = read(EXTENSION.keyUsage, 'key usage', readKeyUsage);
  const authority = read(EXTENSION.authorityKeyId, 'authority key identifier', readAuthorityKey);
  const names = read(EXTENSION.subjectAltName, 'subject alternative name', (value) =>
    readGeneralNames(value, 'subject alternative name'),
  );
  return {
    basicConstraints: read(EXTENSION.basicConstraints, 'basic constraints', readBasicConstraints),
    keyUsage: usages && { usages, critical: find(EXTENSION.keyUsage)!.critical },
    extendedKeyUsage: read(EXTENSION.extendedKeyUsage, 'extended key usage', readPurposes),
    subjectAltName: names && { names, critical: find(EXTENSION.subjectAltName)!.critical },
    authorityKeyId: authority?.keyId,
    authoritySerial: authority?.serial && serialText(authority.serial),
    subjectKeyId: read(EXTENSION.subjectKeyId, 'subject key identifier', (value) =>
      value.octetString('subject key identifier'),
    ),
    nameConstraints: read(EXTENSION.nameConstraints, 'name constraints', readNameConstraints),
    extensions,
    unknownCritical: extensions
      .filter(({ oid, critical }) => critical && !KNOWN.has(oid))
      .map(({ oid }) => oid),
  };
}

/** The URI SANs, as written. */
export function uriNames(certificate: Certificate): string[] {
  return (certificate.subjectAltName?.names ?? [])
    .filter(({ kind }) => kind === 'uri')
    .map(({ value }) => value);
}

/** Whether it may sign certificates: CA:TRUE, and keyCertSign where key usages are given (RFC 5280 section 6.1.4). */
export function isCa(certificate: Certificate): boolean {
  return (
    certificate.basicConstraints?.ca === true &&
    (certificate.keyUsage?.usages.includes('keyCertSign') ?? true)
  );
}

/**
 * Whether it may sign certificates only because its key usages are absent, which RFC 5280 takes for consent. X509-SVID section 4.3 wants
 * keyCertSign to be given: stricter peers refuse what it signed, and CAs that were made by mistake look like this.
 */
export function lacksKeyCertSign(certificate: Certificate): boolean {
  return certificate.keyUsage === undefined && isCa(certificate);
}

/** What is unusual about CA certificates that are accepted all the same, for people: each rule once, with whom it is about. */
export function usageWarnings(cas: readonly Certificate[]): string[] {
  const lacking = cas.filter(lacksKeyCertSign).map(({ subject, sha256 }) => subject || sha256);
  if (lacking.length === 0) return [];
  const names = `${lacking.slice(0, 3).join('; ')}${lacking.length > 3 ? `; and ${lacking.length - 3} others` : ''}`;
  return [
    `CA certificates without key usage keyCertSign, which strict peers refuse (X509-SVID section 4.3): ${names}`,
  ];
}

/** As `usageWarnings`, of the roots of a bundle. */
export function rootWarnings({ rootsDer }: TrustBundle): string[] {
  return usageWarnings(rootsDer.map((der) => parseCertificate(der, 'root')));
}

/** Whether subject and issuer are one name, as in a root. Says nothing of the signature. */
export function isSelfIssued(certificate: Certificate): boolean {
  return Buffer.compare(certificate.subjectDer, certificate.issuerDer) === 0;
}

/**
 * Reads a PEM file of certificates, in order, at least one.
 *
 * @param field  For errors, e.g. `cert-chain.pem`.
 * @throws       AgentError ERR_PARSE, also where a block is anything but CERTIFICATE (`TRUSTED CERTIFICATE` carries more than a
 *               certificate, and a key does not belong among them).
 */
export function parseCertificates(pem: Uint8Array, field: string): Certificate[] {
  return readPem(pem, field).map((block, index) => parseBlock(block, index, field));
}

function parseBlock(block: PemBlock, index: number, field: string): Certificate {
  const where = index === 0 ? field : `${field} block ${index + 1}`;
  if (block.label !== 'CERTIFICATE') {
    block.der.fill(0);
    throw invalid('ERR_PARSE', where, `must be CERTIFICATE, not ${block.label}`);
  }
  return parseCertificate(block.der, where);
}

/**
 * The trust domain that a root names although it is none of `domains`: peers would let that domain's workloads in as ours.
 *
 * @see X509-SVID section 3.2: a signing certificate may carry the SPIFFE ID of its trust domain.
 */
export function foreignTrustDomain(
  root: Certificate,
  domains: ReadonlySet<string>,
): string | undefined {
  return uriNames(root)
    .map((uri) => /^spiffe:\/\/([^/]*)/i.exec(uri)?.[1]?.toLowerCase())
    .find((named) => named !== undefined && !domains.has(named));
}

/**
 * Reads a PEM file of roots. One bad block does not take the good ones away: it is skipped, with its reason. Skipped are blocks that are
 * no certificates, damaged ones, certificates that may not sign certificates, and those of other trust domains.
 *
 * @param domains  The trust domains whose roots these may be; undefined where they are not for identities of ours.
 * @throws AgentError ERR_PARSE when no good one is left.
 */
export function parseRootBundle(
  pem: Uint8Array,
  field: string,
  domains?: ReadonlySet<string>,
): { readonly bundle: TrustBundle; readonly skipped: readonly string[] } {
  const skipped: AgentError[] = [];
  const roots: Uint8Array[] = [];
  scanPem(pem, field).forEach((item, index) => {
    try {
      if (!('label' in item)) throw item;
      const certificate = parseBlock(item, index, field);
      if (!isCa(certificate))
        throw invalid('ERR_PARSE', `${field} block ${index + 1}`, 'must be a CA certificate');
      if (domains) assertOurs(certificate, domains, `${field} block ${index + 1}`);
      roots.push(certificate.der);
    } catch (error) {
      skipped.push(error as AgentError);
    }
  });
  const [first] = skipped;
  if (roots.length === 0 && first !== undefined) throw first;
  return { bundle: createTrustBundle(roots), skipped: skipped.map(errorText) };
}

function assertOurs(root: Certificate, domains: ReadonlySet<string>, field: string): void {
  const named = foreignTrustDomain(root, domains);
  if (named === undefined) return;
  const rule = `is a root of trust domain ${named.slice(0, 255)} (${root.subject}), not of ${[...domains].join(', ')}`;
  throw invalid('ERR_PARSE', field, rule, {
    hint: `take it out, or allow it with --root-trust-domains ${named.slice(0, 255)}`,
  });
}

/** The certificates as PEM, in order. */
export function certificatesPem(ders: readonly Uint8Array[]): Buffer {
  return Buffer.concat(ders.map((der) => writePem('CERTIFICATE', der)));
}
