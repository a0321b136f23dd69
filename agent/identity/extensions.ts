import {
  contextTag,
  type DerReader,
  derBitString,
  derBoolean,
  derElement,
  derInteger,
  derOctetString,
  derOid,
  derSequence,
  TAG,
} from '../base/der';
import { invalid } from '../base/errors';
import { ipOctets } from '../base/ip-address';

/** OIDs of the extensions that we read. */
export const EXTENSION = {
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  certificatePolicies: '2.5.29.32',
  authorityKeyId: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
} as const;

/** Purposes of EXTENSION.extendedKeyUsage. */
export const PURPOSE = {
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
  any: '2.5.29.37.0',
} as const;

/** Key usages in the order of their bits (RFC 5280 section 4.2.1.3). */
export const KEY_USAGES = [
  'digitalSignature',
  'nonRepudiation',
  'keyEncipherment',
  'dataEncipherment',
  'keyAgreement',
  'keyCertSign',
  'cRLSign',
  'encipherOnly',
  'decipherOnly',
] as const;
export type KeyUsage = (typeof KEY_USAGES)[number];

/** One extension as it stands. */
export interface Extension {
  readonly oid: string;
  readonly critical: boolean;
  /** The DER in the OCTET STRING. */
  readonly value: Uint8Array;
}

/** Kinds of GeneralName in the order of their tags. */
export const NAME_KINDS = [
  'other',
  'email',
  'dns',
  'x400',
  'directory',
  'ediParty',
  'uri',
  'ip',
  'registeredId',
] as const;
export type NameKind = (typeof NAME_KINDS)[number];

/** A GeneralName: text for `email`, `dns` and `uri`, dotted or hex text for `ip`, hex of the DER for the rest. */
export interface GeneralName {
  readonly kind: NameKind;
  readonly value: string;
}

const MAX_EXTENSIONS = 64;
const MAX_NAMES = 1024;

/**
 * Reads Extensions (a SEQUENCE), each OID once.
 *
 * @see RFC 5280 section 4.2.
 */
export function readExtensions(reader: DerReader): Extension[] {
  const extensions = reader.sequence('extensions', (inner) =>
    inner.list('extensions', MAX_EXTENSIONS, readExtension),
  );
  const oids = new Set<string>();
  for (const { oid } of extensions) {
    if (oids.has(oid)) throw reader.refuse('extensions', `must not repeat ${oid}`);
    oids.add(oid);
  }
  return extensions;
}

function readExtension(reader: DerReader): Extension {
  return reader.sequence('extension', (inner) => {
    const oid = inner.oid('extension');
    const marked = inner.nextTag === TAG.boolean;
    const critical = marked && inner.boolean('extension');
    // DEFAULT FALSE: DER leaves a default out.
    if (marked && !critical) throw inner.refuse('extension', 'must not spell out a default');
    return { oid, critical, value: inner.octetString('extension') };
  });
}

/** Reads GeneralNames, at least one. */
export function readGeneralNames(reader: DerReader, name: string): GeneralName[] {
  const names = reader.sequence(name, (inner) =>
    inner.list(name, MAX_NAMES, (each) => readGeneralName(each, name)),
  );
  if (names.length === 0) throw reader.refuse(name, 'must not be empty');
  return names;
}

/** Reads one GeneralName. */
export function readGeneralName(reader: DerReader, name: string): GeneralName {
  const { tag, content } = reader.any(name);
  const kind = NAME_KINDS[tag & 0x1f];
  // otherName, x400Address, directoryName and ediPartyName are constructed, the others primitive.
  const constructed =
    kind === 'other' || kind === 'x400' || kind === 'directory' || kind === 'ediParty';
  if (
    kind === undefined ||
    tag !== contextTag(tag & 0x1f, constructed ? 'constructed' : 'primitive')
  ) {
    throw reader.refuse(name, 'must hold general names');
  }
  if (kind === 'uri' || kind === 'dns' || kind === 'email') {
    if (content.some((octet) => octet < 0x20 || octet > 0x7e))
      throw reader.refuse(name, 'must hold printable ASCII');
    return { kind, value: Buffer.from(content).toString('latin1') };
  }
  if (kind === 'ip' && content.length === 4) return { kind, value: content.join('.') };
  return { kind, value: Buffer.from(content).toString('hex') };
}

/** Reads KeyUsage: at least one bit, none beyond the nine. */
export function readKeyUsage(reader: DerReader): KeyUsage[] {
  const { unusedBits, bytes } = reader.bitString('key usage');
  const bits = bytes.length * 8 - unusedBits;
  const isSet = (index: number) => (bytes[index >> 3]! & (0x80 >> (index & 7))) !== 0;
  // X.690 section 11.2.2: a named bit list ends with a set bit.
  if (bits === 0 || bits > KEY_USAGES.length || !isSet(bits - 1))
    throw reader.refuse('key usage', 'must be a DER bit list, not empty');
  return KEY_USAGES.filter((_, index) => index < bits && isSet(index));
}

/** Reads ExtKeyUsageSyntax: at least one OID. */
export function readPurposes(reader: DerReader): string[] {
  const purposes = reader.sequence('extended key usage', (inner) =>
    inner.list('extended key usage', 64, (each) => each.oid('extended key usage')),
  );
  if (purposes.length === 0) throw reader.refuse('extended key usage', 'must not be empty');
  return purposes;
}

/** Reads BasicConstraints. `pathLength` only where `ca`. */
export function readBasicConstraints(reader: DerReader): {
  readonly ca: boolean;
  readonly pathLength: number | undefined;
} {
  return reader.sequence('basic constraints', (inner) => {
    const marked = inner.nextTag === TAG.boolean;
    const ca = marked && inner.boolean('basic constraints');
    if (marked && !ca) throw inner.refuse('basic constraints', 'must not spell out a default');
    const pathLength = inner.atEnd ? undefined : inner.smallInteger('path length');
    if (pathLength !== undefined && !ca)
      throw inner.refuse('path length', 'must not stand without CA:TRUE');
    return { ca, pathLength };
  });
}

/** Which certificate of an issuer is meant. */
export interface AuthorityKey {
  readonly keyId: Uint8Array | undefined;
  /** Of the issuer's own certificate, the octets of the INTEGER. RFC 5280 calls it a help; OpenSSL and Envoy take another for another issuer. */
  readonly serial: Uint8Array | undefined;
}

/** Reads AuthorityKeyIdentifier. Issuer and serial number come together or not at all. */
export function readAuthorityKey(reader: DerReader): AuthorityKey {
  const name = 'authority key identifier';
  return reader.sequence(name, (inner) => {
    const has = (tag: number) => inner.nextTag === tag;
    const keyId = has(contextTag(0, 'primitive')) ? inner.any(name).content : undefined;
    const issuer = inner.optional(name, contextTag(1), (names) =>
      names.list(name, MAX_NAMES, (each) => readGeneralName(each, name)),
    );
    const serial = has(contextTag(2, 'primitive'))
      ? inner.integer(name, contextTag(2, 'primitive'))
      : undefined;
    if ((issuer === undefined) !== (serial === undefined))
      throw inner.refuse(name, 'must have issuer and serial number together');
    return { keyId, serial };
  });
}

/** Name constraints: the URI hosts that may and may not be named below, and other kinds of name that are constrained. */
export interface NameConstraints {
  readonly permittedUris: readonly string[];
  readonly excludedUris: readonly string[];
  readonly otherKinds: readonly NameKind[];
}

/** Reads NameConstraints. @see RFC 5280 section 4.2.1.10. */
export function readNameConstraints(reader: DerReader): NameConstraints {
  const subtree = (inner: DerReader) =>
    inner.sequence('name constraints', (each) => readGeneralName(each, 'name constraints'));
  const subtrees = (inner: DerReader) => inner.list('name constraints', MAX_NAMES, subtree);
  return reader.sequence('name constraints', (inner) => {
    const permitted = inner.optional('name constraints', contextTag(0), subtrees) ?? [];
    const excluded = inner.optional('name constraints', contextTag(1), subtrees) ?? [];
    const uris = (names: readonly GeneralName[]) =>
      names.filter(({ kind }) => kind === 'uri').map(({ value }) => value);
    const otherKinds = [...permitted, ...excluded]
      .map(({ kind }) => kind)
      .filter((kind) => kind !== 'uri');
    return {
      permittedUris: uris(permitted),
      excludedUris: uris(excluded),
      otherKinds: [...new Set(otherKinds)],
    };
  });
}

/** Writes one extension around the DER of its value. */
export function encodeExtension(oid: string, critical: boolean, value: Uint8Array): Uint8Array {
  return derSequence(derOid(oid), ...(critical ? [derBoolean(true)] : []), derOctetString(value));
}

/** Writes a subjectAltName of URIs. */
export function encodeUriNames(uris: readonly string[], critical: boolean): Uint8Array {
  const names = uris.map((uri) =>
    derElement(contextTag(6, 'primitive'), Buffer.from(uri, 'latin1')),
  );
  return encodeExtension(EXTENSION.subjectAltName, critical, derSequence(...names));
}

/** Writes a subjectAltName of a TLS server's names: hosts, and IPv4 or IPv6 addresses as text. */
export function encodeServerNames(
  dnsNames: readonly string[],
  ipAddresses: readonly string[],
  critical: boolean,
): Uint8Array {
  const names = [
    ...dnsNames.map((name) => derElement(contextTag(2, 'primitive'), Buffer.from(name, 'latin1'))),
    ...ipAddresses.map((address) => derElement(contextTag(7, 'primitive'), octetsOf(address))),
  ];
  return encodeExtension(EXTENSION.subjectAltName, critical, derSequence(...names));
}

function octetsOf(address: string): Uint8Array {
  const octets = ipOctets(address);
  if (octets === undefined)
    throw invalid('ERR_PARSE', 'ip address', 'must be an IPv4 or IPv6 address');
  return octets;
}

/** Writes a KeyUsage: as many bits as reach the last set one (X.690 section 11.2.2). At least one usage. */
export function encodeKeyUsage(usages: readonly KeyUsage[], critical = true): Uint8Array {
  const set = usages.map((usage) => KEY_USAGES.indexOf(usage));
  const count = Math.max(...set) + 1;
  const octets = Buffer.alloc(Math.ceil(count / 8));
  for (const bit of set) octets[bit >> 3]! |= 0x80 >> (bit & 7);
  return encodeExtension(
    EXTENSION.keyUsage,
    critical,
    derBitString(octets, octets.length * 8 - count),
  );
}

/** Writes an ExtendedKeyUsage of OIDs. */
export function encodePurposes(purposes: readonly string[]): Uint8Array {
  return encodeExtension(EXTENSION.extendedKeyUsage, false, derSequence(...purposes.map(derOid)));
}

/** Writes a critical BasicConstraints. */
export function encodeBasicConstraints(ca: boolean, pathLength?: number): Uint8Array {
  const value = [
    ...(ca ? [derBoolean(true)] : []),
    ...(pathLength === undefined ? [] : [derInteger(pathLength)]),
  ];
  return encodeExtension(EXTENSION.basicConstraints, true, derSequence(...value));
}

/** Writes the two key identifiers. */
export function encodeKeyIds(subjectKeyId: Uint8Array, authorityKeyId: Uint8Array): Uint8Array[] {
  return [
    encodeExtension(EXTENSION.subjectKeyId, false, derOctetString(subjectKeyId)),
    encodeExtension(
      EXTENSION.authorityKeyId,
      false,
      derSequence(derElement(contextTag(0, 'primitive'), authorityKeyId)),
    ),
  ];
}
