import {
  createHash,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
} from 'node:crypto';
import {
  contextTag,
  derBitString,
  derElement,
  derInteger,
  derOid,
  derSequence,
  derTime,
  TAG,
} from '../../agent/base/der';
import {
  EXTENSION,
  encodeBasicConstraints,
  encodeExtension,
  encodeKeyIds,
  encodeKeyUsage,
  encodePurposes,
  encodeUriNames,
  type KeyUsage,
  PURPOSE,
} from '../../agent/identity/extensions';
import { generateKeyPair, type KeyAlgorithm, type KeyPair } from '../../agent/identity/keys';
import { EMPTY_NAME, encodeName } from '../../agent/identity/name';
import { keyIdentifier } from '../../agent/identity/public-key';
import { createTrustBundle, type TrustBundle } from '../../agent/identity/trust-bundle';

export const HOUR_MS = 3_600_000;
/** The moment around which test certificates are made, unless told: `new TestClock()` begins then. */
export const TEST_NOW = Date.parse('2026-01-01T00:00:00Z');
/** Whom test leaves are for, unless told. */
export const TEST_ID = 'spiffe://cluster.local/ns/shop/sa/cart';

/** Every field of a certificate as it is to be written, right or wrong. */
export interface CertificateFields {
  /** As in the INTEGER: 2 is version 3. Undefined leaves it out, which is version 1. */
  readonly version?: number | undefined;
  /** The octets of the INTEGER, as they are. */
  readonly serial: Uint8Array;
  readonly issuerDer: Uint8Array;
  readonly subjectDer: Uint8Array;
  /** DER of the two times. */
  readonly notBefore: Uint8Array;
  readonly notAfter: Uint8Array;
  readonly spkiDer: Uint8Array;
  /** DER of each extension, in order; none leaves the field out. */
  readonly extensions: readonly Uint8Array[];
}

/** Signature algorithms that a test may misuse: OID, hash for OpenSSL, whether NULL parameters follow. */
export const SIGNATURES = {
  'ECDSA-SHA1': ['1.2.840.10045.4.1', 'sha1', false],
  'ECDSA-SHA256': ['1.2.840.10045.4.3.2', 'sha256', false],
  'ECDSA-SHA384': ['1.2.840.10045.4.3.3', 'sha384', false],
  'ECDSA-SHA512': ['1.2.840.10045.4.3.4', 'sha512', false],
  'RSA-MD5': ['1.2.840.113549.1.1.4', 'md5', true],
  'RSA-SHA1': ['1.2.840.113549.1.1.5', 'sha1', true],
  'RSA-SHA256': ['1.2.840.113549.1.1.11', 'sha256', true],
  'RSA-SHA512': ['1.2.840.113549.1.1.13', 'sha512', true],
  Ed25519: ['1.3.101.112', undefined, false],
} as const;
export type SignatureName = keyof typeof SIGNATURES;

/** Signs anything: `SEQUENCE { tbs, algorithm, signature }`. */
export function signDer(tbsDer: Uint8Array, signer: KeyObject, name: SignatureName): Uint8Array {
  const [, hash] = SIGNATURES[name];
  return derSequence(tbsDer, algorithmDer(name), derBitString(sign(hash, tbsDer, signer)));
}

export function algorithmDer(name: SignatureName): Uint8Array {
  const [oid, , withNull] = SIGNATURES[name];
  return derSequence(derOid(oid), ...(withNull ? [derElement(TAG.null)] : []));
}

/** What a key signs with where nothing else is asked. */
export function naturalSignature(key: KeyObject): SignatureName {
  if (key.asymmetricKeyType === 'rsa') return 'RSA-SHA256';
  if (key.asymmetricKeyType === 'ed25519') return 'Ed25519';
  return key.asymmetricKeyDetails?.namedCurve === 'secp384r1' ? 'ECDSA-SHA384' : 'ECDSA-SHA256';
}

/** Writes and signs a certificate exactly as told. */
export function signCertificate(
  fields: CertificateFields,
  signer: KeyObject,
  signature = naturalSignature(signer),
): Uint8Array {
  const { version, serial, issuerDer, subjectDer, notBefore, notAfter, spkiDer, extensions } =
    fields;
  const tbs = derSequence(
    ...(version === undefined ? [] : [derElement(contextTag(0), derInteger(version))]),
    derElement(TAG.integer, serial),
    algorithmDer(signature),
    issuerDer,
    derSequence(notBefore, notAfter),
    subjectDer,
    spkiDer,
    ...(extensions.length === 0 ? [] : [derElement(contextTag(3), derSequence(...extensions))]),
  );
  return signDer(tbs, signer, signature);
}

/** A certificate authority that does as it is told. */
export interface TestCa {
  readonly certificateDer: Uint8Array;
  readonly subjectDer: Uint8Array;
  readonly privateKey: KeyObject;
  readonly keyId: Uint8Array;
  /** The roots above it: itself, where it is one. */
  readonly bundle: TrustBundle;
  /** What goes with a leaf, nearest first; empty for a root. */
  readonly intermediatesDer: readonly Uint8Array[];
}

export interface TestCaOptions {
  readonly algorithm?: KeyAlgorithm;
  /** A key to use instead of a new one, of any kind and strength. */
  readonly privateKey?: KeyObject;
  readonly name?: string;
  /** DER of the name, instead. */
  readonly subjectDer?: Uint8Array;
  /** Who signs it; undefined for a root. */
  readonly parent?: TestCa | undefined;
  readonly notBeforeAt?: number;
  readonly notAfterAt?: number;
  readonly pathLength?: number | undefined;
  /** Instead of what a CA has. */
  readonly keyUsage?: readonly KeyUsage[] | undefined;
  readonly isCa?: boolean;
  readonly version?: number | undefined;
  readonly serial?: Uint8Array;
  readonly signature?: SignatureName;
  /** DER of extensions in addition. */
  readonly extraExtensions?: readonly Uint8Array[];
  /** Leaves out AKI and SKI. */
  readonly noKeyIds?: boolean;
}

/** A root, or with `parent` an intermediate: P-256, valid from a day before TEST_NOW for ten years. */
export async function makeTestCa(options: TestCaOptions = {}): Promise<TestCa> {
  const {
    algorithm = 'ecdsa-p256',
    name = options.parent ? 'intermediate' : 'root',
    parent,
  } = options;
  const privateKey = options.privateKey ?? (await generateKeyPair(algorithm)).privateKey.reveal();
  const spkiDer = spkiOf(privateKey);
  const subjectDer =
    options.subjectDer ??
    encodeName([
      ['O', 'cluster.local'],
      ['CN', name],
    ]);
  const keyId = keyIdentifier(spkiDer);
  const usages = 'keyUsage' in options ? options.keyUsage : (['keyCertSign', 'cRLSign'] as const);
  const extensions = [
    ...(usages ? [encodeKeyUsage(usages)] : []),
    ...((options.isCa ?? true) ? [encodeBasicConstraints(true, options.pathLength)] : []),
    ...(options.noKeyIds ? [] : encodeKeyIds(keyId, parent?.keyId ?? keyId)),
    ...(options.extraExtensions ?? []),
  ];
  const fields = {
    version: 'version' in options ? options.version : 2,
    serial: options.serial ?? randomSerial(),
    issuerDer: parent?.subjectDer ?? subjectDer,
    subjectDer,
    notBefore: derTime(options.notBeforeAt ?? TEST_NOW - 24 * HOUR_MS),
    notAfter: derTime(options.notAfterAt ?? TEST_NOW + 10 * 365 * 24 * HOUR_MS),
    spkiDer,
    extensions: options.version === undefined && 'version' in options ? [] : extensions,
  };
  const certificateDer = signCertificate(
    fields,
    parent?.privateKey ?? privateKey,
    options.signature,
  );
  return {
    certificateDer,
    subjectDer,
    privateKey,
    keyId,
    bundle: parent?.bundle ?? createTrustBundle([certificateDer]),
    intermediatesDer: parent ? [certificateDer, ...parent.intermediatesDer] : [],
  };
}

export interface LeafOptions {
  /** The key to certify, or any SubjectPublicKeyInfo. */
  readonly key: KeyPair | { readonly spkiDer: Uint8Array };
  /** URI SANs; none leaves the extension out unless there are other names. */
  readonly uris?: readonly string[];
  /** DER of GeneralNames beside the URIs, e.g. `dnsName('x')`. */
  readonly otherNames?: readonly Uint8Array[];
  readonly sanCritical?: boolean;
  readonly subjectDer?: Uint8Array;
  readonly issuerDer?: Uint8Array;
  readonly notBeforeAt?: number;
  readonly notAfterAt?: number;
  /** DER of the times, instead. */
  readonly notBefore?: Uint8Array;
  readonly notAfter?: Uint8Array;
  /** Undefined leaves the extension out. */
  readonly keyUsage?: readonly KeyUsage[] | undefined;
  readonly keyUsageCritical?: boolean;
  readonly purposes?: readonly string[] | undefined;
  readonly isCa?: boolean;
  readonly serial?: Uint8Array;
  readonly version?: number | undefined;
  /** Signs with another key than the CA's. */
  readonly signer?: KeyObject;
  readonly signature?: SignatureName;
  readonly authorityKeyId?: Uint8Array;
  readonly noKeyIds?: boolean;
  readonly extraExtensions?: readonly Uint8Array[];
}

/** A leaf of `ca`: right in every way but those that `options` ask for. Valid from two minutes before TEST_NOW for 24 hours. */
export function issueLeaf(ca: TestCa, options: LeafOptions): Uint8Array {
  const { key, uris = [TEST_ID], otherNames = [], sanCritical = true } = options;
  const usages = 'keyUsage' in options ? options.keyUsage : (['digitalSignature'] as const);
  const purposes =
    'purposes' in options ? options.purposes : [PURPOSE.serverAuth, PURPOSE.clientAuth];
  const names = [
    ...uris.map((uri) => derElement(contextTag(6, 'primitive'), Buffer.from(uri, 'latin1'))),
    ...otherNames,
  ];
  const extensions = [
    ...(usages ? [encodeKeyUsage(usages, options.keyUsageCritical)] : []),
    ...(purposes ? [encodePurposes(purposes)] : []),
    encodeBasicConstraints(options.isCa ?? false),
    ...(options.noKeyIds
      ? []
      : encodeKeyIds(leafKeyId(key.spkiDer), options.authorityKeyId ?? ca.keyId)),
    ...(names.length === 0
      ? []
      : [encodeExtension(EXTENSION.subjectAltName, sanCritical, derSequence(...names))]),
    ...(options.extraExtensions ?? []),
  ];
  const fields = {
    version: 'version' in options ? options.version : 2,
    serial: options.serial ?? randomSerial(),
    issuerDer: options.issuerDer ?? ca.subjectDer,
    subjectDer: options.subjectDer ?? EMPTY_NAME,
    notBefore: options.notBefore ?? derTime(options.notBeforeAt ?? TEST_NOW - 120_000),
    notAfter: options.notAfter ?? derTime(options.notAfterAt ?? TEST_NOW + 24 * HOUR_MS),
    spkiDer: key.spkiDer,
    extensions,
  };
  return signCertificate(fields, options.signer ?? ca.privateKey, options.signature);
}

/** A 127-bit positive serial's INTEGER octets. */
export function randomSerial(): Uint8Array {
  const octets = randomBytes(16);
  octets[0] = (octets[0]! & 0x7f) | 0x40;
  return octets;
}

export const dnsName = (name: string): Uint8Array =>
  derElement(contextTag(2, 'primitive'), Buffer.from(name, 'latin1'));
export const ipName = (...octets: number[]): Uint8Array =>
  derElement(contextTag(7, 'primitive'), Buffer.from(octets));
export const emailName = (name: string): Uint8Array =>
  derElement(contextTag(1, 'primitive'), Buffer.from(name, 'latin1'));

/** A SubjectAltName of one URI, for `extraExtensions`. */
export function uriAltName(uri: string): Uint8Array {
  return encodeExtension(
    EXTENSION.subjectAltName,
    false,
    derSequence(derElement(contextTag(6, 'primitive'), Buffer.from(uri, 'latin1'))),
  );
}

/** NameConstraints on URIs. */
export function uriConstraints(
  permitted: readonly string[],
  excluded: readonly string[],
): Uint8Array {
  const subtrees = (uris: readonly string[]) =>
    uris.map((uri) =>
      derSequence(derElement(contextTag(6, 'primitive'), Buffer.from(uri, 'latin1'))),
    );
  const part = (number: number, uris: readonly string[]) =>
    uris.length === 0 ? [] : [derElement(contextTag(number), ...subtrees(uris))];
  return encodeExtension(
    EXTENSION.nameConstraints,
    true,
    derSequence(...part(0, permitted), ...part(1, excluded)),
  );
}

/** A CSR exactly as told, right unless `options` say otherwise. */
export function makeCsr(options: CsrOptions): Uint8Array {
  const {
    privateKey,
    spkiDer = spkiOf(privateKey),
    subjectDer = encodeName([['O', '']]),
    version = 0,
  } = options;
  const extensions = options.extensions ?? [encodeUriNames([TEST_ID], true)];
  const request = derSequence(
    derOid('1.2.840.113549.1.9.14'),
    derElement(TAG.set, derSequence(...extensions)),
  );
  const attributes = options.attributes ?? [request];
  const info = derSequence(
    derInteger(version),
    subjectDer,
    spkiDer,
    derElement(contextTag(0), ...attributes),
  );
  return signDer(
    info,
    options.signer ?? privateKey,
    options.signature ?? naturalSignature(options.signer ?? privateKey),
  );
}

/** A request of RSA-8192, for which a number stands that took no time to make. Another key signed it, which only verifying it tells. */
export function makeDearCsr(): Uint8Array {
  const modulus = Buffer.concat([randomBytes(1_023), Buffer.of(0xa5)]).fill(0xc1, 0, 1);
  const key = createPublicKey({
    key: { kty: 'RSA', e: 'AQAB', n: modulus.toString('base64url') },
    format: 'jwk',
  });
  return makeCsr({
    privateKey: makeKey('rsa', 2_048),
    spkiDer: key.export({ type: 'spki', format: 'der' }),
  });
}

export interface CsrOptions {
  readonly privateKey: KeyObject;
  readonly spkiDer?: Uint8Array;
  readonly subjectDer?: Uint8Array;
  readonly version?: number;
  /** DER of each requested extension. */
  readonly extensions?: readonly Uint8Array[];
  /** DER of each attribute, instead of the one with the extensions. */
  readonly attributes?: readonly Uint8Array[];
  readonly signer?: KeyObject;
  readonly signature?: SignatureName;
}

/** Any key that node can make, however weak. */
export function makeKey(kind: 'rsa', bits: number, exponent?: number): KeyObject;
export function makeKey(kind: 'ec', curve: string): KeyObject;
export function makeKey(kind: 'ed25519'): KeyObject;
export function makeKey(
  kind: 'rsa' | 'ec' | 'ed25519',
  detail?: number | string,
  exponent = 65_537,
): KeyObject {
  if (kind === 'rsa')
    return generateKeyPairSync('rsa', { modulusLength: detail as number, publicExponent: exponent })
      .privateKey;
  if (kind === 'ec') return generateKeyPairSync('ec', { namedCurve: detail as string }).privateKey;
  return generateKeyPairSync('ed25519').privateKey;
}

/** SubjectPublicKeyInfo of any private key. */
export function spkiOf(privateKey: KeyObject): Buffer {
  return createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
}

function leafKeyId(spkiDer: Uint8Array): Uint8Array {
  return createHash('sha256').update(spkiDer).digest().subarray(0, 20);
}
