import 'reflect-metadata';
import { createHash, createPrivateKey, webcrypto } from 'node:crypto';
import { Crypto as PeculiarCrypto } from '@peculiar/webcrypto';
import * as x509 from '@peculiar/x509';
import { contextTag, derElement, derSequence } from '../base/der';
import { AgentError, errorText, invalid } from '../base/errors';
import { assertNotFactorable, type Csr, parseCsr, type UnverifiedCsr } from './csr';
import type { CertificateEngine, CertificateSpec, EngineName } from './engine';
import { EXTENSION } from './extensions';
import { type KeyAlgorithm, type KeyPair, keyPairOf } from './keys';
import { EMPTY_NAME, EMPTY_ORGANISATION } from './name';
import { formatSpiffeId } from './spiffe-id';

type Crypto = webcrypto.Crypto;
type CryptoKey = webcrypto.CryptoKey;

/** The parameters that WebCrypto wants with a key of each kind: to make it, to import it, and to sign with it. */
const PARAMETERS = {
  'ecdsa-p256': { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
  'ecdsa-p384': { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' },
  'rsa-2048': rsa(2048),
  'rsa-3072': rsa(3072),
  'rsa-4096': rsa(4096),
} as const satisfies Record<KeyAlgorithm, object>;

function rsa(modulusLength: number) {
  return {
    name: 'RSASSA-PKCS1-v1_5',
    modulusLength,
    publicExponent: Uint8Array.of(1, 0, 1),
    hash: 'SHA-256',
  };
}

/**
 * @peculiar/x509 on one of two WebCrypto providers. It judges the direct engine in tests and serves whoever sets `--crypto`.
 *
 * @param name  `webcrypto`: the runtime's own; `peculiar`: @peculiar/webcrypto.
 */
export function createPeculiarEngine(name: Exclude<EngineName, 'direct'>): CertificateEngine {
  const crypto = (name === 'webcrypto' ? webcrypto : new PeculiarCrypto()) as Crypto;
  return {
    name,
    generateKeyPair: (algorithm) => generateKeyPair(crypto, algorithm),
    createCsr: async (key, id) => {
      const request = await x509.Pkcs10CertificateRequestGenerator.create(
        {
          name: new x509.Name(copy(EMPTY_ORGANISATION)),
          keys: await importPair(crypto, key),
          signingAlgorithm: PARAMETERS[key.algorithm],
          extensions: [subjectAltName(formatSpiffeId(id), true)],
        },
        crypto,
      );
      return new Uint8Array(request.rawData);
    },
    readCsr: async (der) => verifyCsr(crypto, parseCsr(der)),
    verifyCsr: (csr) => verifyCsr(crypto, csr),
    createCertificate: (spec, issuerKey) => createCertificate(crypto, spec, issuerKey),
  };
}

async function generateKeyPair(crypto: Crypto, algorithm: KeyAlgorithm): Promise<KeyPair> {
  const { privateKey } = await crypto.subtle.generateKey(PARAMETERS[algorithm], true, [
    'sign',
    'verify',
  ]);
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey('pkcs8', privateKey));
  const pair = keyPairOf(createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' }), algorithm);
  pkcs8.fill(0);
  return pair;
}

async function importPair(crypto: Crypto, key: KeyPair): Promise<webcrypto.CryptoKeyPair> {
  const publicKey = await crypto.subtle.importKey(
    'spki',
    copy(key.spkiDer),
    PARAMETERS[key.algorithm],
    true,
    ['verify'],
  );
  return { privateKey: await importPrivate(crypto, key), publicKey };
}

async function importPrivate(crypto: Crypto, key: KeyPair): Promise<CryptoKey> {
  const pkcs8 = copy(key.privateKey.reveal().export({ type: 'pkcs8', format: 'der' }));
  try {
    return await crypto.subtle.importKey('pkcs8', pkcs8, PARAMETERS[key.algorithm], false, [
      'sign',
    ]);
  } finally {
    pkcs8.fill(0);
  }
}

/** The strict reader has the first word; @peculiar/x509 verifies the signature and must have read the same. */
async function verifyCsr(crypto: Crypto, csr: UnverifiedCsr): Promise<Csr> {
  assertNotFactorable(csr);
  const { der, facts } = csr;
  const { request, spkiDer, uris } = readRequest(der);
  if (Buffer.compare(spkiDer, facts.spkiDer) !== 0 || uris.join('\n') !== facts.uris.join('\n')) {
    throw invalid('ERR_PARSE', 'csr', 'must read the same to two readers');
  }
  if (!(await request.verify(crypto).catch(() => false)))
    throw invalid('ERR_PARSE', 'csr signature', 'must be made with its own key');
  return facts;
}

function readRequest(der: Uint8Array) {
  try {
    const request = new x509.Pkcs10CertificateRequest(copy(der));
    // Its extensions are parsed when they are first asked for.
    const uris = request.extensions
      .filter((extension) => extension instanceof x509.SubjectAlternativeNameExtension)
      .flatMap(({ names }) =>
        names.items.filter(({ type }) => type === 'url').map(({ value }) => value),
      );
    return { request, spkiDer: new Uint8Array(request.publicKey.rawData), uris };
  } catch (cause) {
    const rule = 'must be a PKCS#10 request';
    throw new AgentError('ERR_PARSE', `csr: ${rule}: ${errorText(cause)}`, {
      field: 'csr',
      rule,
      cause,
    });
  }
}

async function createCertificate(
  crypto: Crypto,
  spec: CertificateSpec,
  issuerKey: KeyPair,
): Promise<Uint8Array> {
  const certificate = await x509.X509CertificateGenerator.create(
    {
      serialNumber: Buffer.from(spec.serial).toString('hex'),
      issuer: new x509.Name(copy(spec.issuerDer)),
      subject: new x509.Name(copy(spec.subjectDer)),
      notBefore: new Date(spec.notBeforeAt),
      notAfter: new Date(spec.notAfterAt),
      publicKey: new x509.PublicKey(copy(spec.spkiDer)),
      signingKey: await importPrivate(crypto, issuerKey),
      signingAlgorithm: PARAMETERS[issuerKey.algorithm],
      extensions: extensionsOf(spec),
    },
    crypto,
  );
  return new Uint8Array(certificate.rawData);
}

function extensionsOf(spec: CertificateSpec): x509.Extension[] {
  const { profile } = spec;
  const keyId = derElement(contextTag(0, 'primitive'), spec.authorityKeyId);
  const subjectCritical = Buffer.compare(spec.subjectDer, EMPTY_NAME) === 0;
  return [
    ...profileExtensions(profile),
    new x509.SubjectKeyIdentifierExtension(Buffer.from(spec.subjectKeyId).toString('hex')),
    // Its own class makes a SHA-1 of a key; here the identifier is given.
    new x509.Extension(EXTENSION.authorityKeyId, false, derSequence(keyId)),
    ...namesOf(profile, subjectCritical),
  ];
}

function namesOf(profile: CertificateSpec['profile'], subjectCritical: boolean): x509.Extension[] {
  if (profile.kind === 'server') {
    const names = [
      ...profile.dnsNames.map((value) => ({ type: 'dns' as const, value })),
      ...profile.ipAddresses.map((value) => ({ type: 'ip' as const, value })),
    ];
    return [new x509.SubjectAlternativeNameExtension(names, subjectCritical)];
  }
  return profile.uri === undefined
    ? []
    : [subjectAltName(profile.uri, subjectCritical || profile.kind === 'leaf')];
}

function profileExtensions(profile: CertificateSpec['profile']): x509.Extension[] {
  const { digitalSignature, keyEncipherment, keyCertSign, cRLSign } = x509.KeyUsageFlags;
  if (profile.kind === 'server') {
    return [
      new x509.KeyUsagesExtension(digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth], false),
      new x509.BasicConstraintsExtension(false, undefined, true),
    ];
  }
  if (profile.kind === 'leaf') {
    return [
      new x509.KeyUsagesExtension(
        profile.keyEncipherment ? digitalSignature | keyEncipherment : digitalSignature,
        true,
      ),
      new x509.ExtendedKeyUsageExtension(
        [x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth],
        false,
      ),
      new x509.BasicConstraintsExtension(false, undefined, true),
    ];
  }
  return [
    new x509.KeyUsagesExtension(keyCertSign | cRLSign, true),
    new x509.BasicConstraintsExtension(
      true,
      profile.kind === 'intermediate' ? profile.pathLength : undefined,
      true,
    ),
  ];
}

function subjectAltName(uri: string, critical: boolean): x509.Extension {
  return new x509.SubjectAlternativeNameExtension([{ type: 'url', value: uri }], critical);
}

/** @peculiar wants ArrayBuffers of its own; a Node Buffer is often a window on a pool that holds others' bytes. */
function copy(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}

/** Control and direction characters become `?`: names in certificates are a stranger's text on somebody's terminal. */
function harmless(text: string): string {
  return text.replace(/\p{C}/gu, '?');
}

/**
 * Everything that a certificate says, as indented text for people: `keyturn cert show`.
 *
 * @throws AgentError ERR_PARSE where @peculiar/x509 cannot read it either.
 */
export function describeCertificate(der: Uint8Array): string {
  try {
    return new x509.X509Certificate(copy(der))
      .toString('text')
      .split('\n')
      .map(harmless)
      .join('\n');
  } catch (cause) {
    const rule = 'must be an X.509 certificate';
    throw new AgentError('ERR_PARSE', `certificate: ${rule}: ${errorText(cause)}`, {
      field: 'certificate',
      rule,
      cause,
    });
  }
}

/** What a certificate says, for people and programs that look at it; nothing of it has been verified. Instants are ISO 8601, UTC. */
export interface CertificateFacts {
  readonly subject: string;
  readonly issuer: string;
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBefore: string;
  readonly notAfter: string;
  /** e.g. `ECDSA P-256`, `RSA 2048`. */
  readonly key: string;
  /** e.g. `ECDSA SHA-256`. */
  readonly signature: string;
  readonly ca: boolean;
  readonly uris: readonly string[];
  /** `type:value`, e.g. `dns:example.org`. */
  readonly otherNames: readonly string[];
  readonly keyUsage: readonly string[];
  /** Names of the usual ones, OIDs of others. */
  readonly extendedKeyUsage: readonly string[];
  /** Of the DER, lower-case hex. */
  readonly sha256: string;
}

/**
 * Reads a certificate leniently: what others made is looked at here too.
 *
 * @throws AgentError ERR_PARSE.
 */
export function inspectCertificate(der: Uint8Array, field: string): CertificateFacts {
  try {
    const certificate = new x509.X509Certificate(copy(der));
    const names = certificate.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? [];
    return {
      subject: harmless(certificate.subject),
      issuer: harmless(certificate.issuer),
      serial: certificate.serialNumber.toLowerCase(),
      notBefore: certificate.notBefore.toISOString(),
      notAfter: certificate.notAfter.toISOString(),
      key: algorithmText(certificate.publicKey.algorithm),
      signature: algorithmText(certificate.signatureAlgorithm),
      ca: certificate.getExtension(x509.BasicConstraintsExtension)?.ca ?? false,
      uris: names.filter((name) => name.type === 'url').map((name) => harmless(name.value)),
      otherNames: names
        .filter((name) => name.type !== 'url')
        .map((name) => harmless(`${name.type}:${name.value}`)),
      keyUsage: usageNames(certificate.getExtension(x509.KeyUsagesExtension)?.usages ?? 0),
      extendedKeyUsage: (
        certificate.getExtension(x509.ExtendedKeyUsageExtension)?.usages ?? []
      ).map((oid) => purposeName(String(oid))),
      sha256: createHash('sha256').update(der).digest('hex'),
    };
  } catch (caught) {
    throw invalid('ERR_PARSE', field, `is not a certificate: ${errorText(caught)}`, {
      cause: caught,
    });
  }
}

function algorithmText(algorithm: object): string {
  const { name, namedCurve, modulusLength, hash } = algorithm as {
    name?: string;
    namedCurve?: string;
    modulusLength?: number;
    hash?: { name?: string };
  };
  const family = name?.startsWith('RSASSA') ? 'RSA' : name;
  return [family, namedCurve, modulusLength, hash?.name]
    .filter((part) => part !== undefined)
    .join(' ');
}

function usageNames(usages: number): string[] {
  return Object.entries(x509.KeyUsageFlags)
    .filter(([, bit]) => typeof bit === 'number' && (usages & bit) !== 0)
    .map(([name]) => name);
}

function purposeName(oid: string): string {
  return Object.entries(x509.ExtendedKeyUsage).find(([, value]) => value === oid)?.[0] ?? oid;
}
