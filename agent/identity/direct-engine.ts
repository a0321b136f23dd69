import {
  contextTag,
  derBitString,
  derElement,
  derInteger,
  derOid,
  derSequence,
  derTime,
  TAG,
} from '../base/der';
import { invalid } from '../base/errors';
import { assertNotFactorable, type Csr, parseCsr, type UnverifiedCsr } from './csr';
import type { CertificateEngine, CertificateSpec } from './engine';
import {
  encodeBasicConstraints,
  encodeKeyIds,
  encodeKeyUsage,
  encodePurposes,
  encodeServerNames,
  encodeUriNames,
  PURPOSE,
} from './extensions';
import { generateKeyPair, type KeyPair } from './keys';
import { EMPTY_NAME, EMPTY_ORGANISATION } from './name';
import { isSignatureValidAside, signAside, signatureAlgorithmOf, signBytes } from './signature';
import { formatSpiffeId } from './spiffe-id';

const EXTENSION_REQUEST = '1.2.840.113549.1.9.14';

/** Our own DER on node:crypto, without any package: what the agent starts fastest and smallest with. */
export const directEngine: CertificateEngine = {
  name: 'direct',
  generateKeyPair,
  createCsr: async (key, id) => {
    const extensions = derSequence(encodeUriNames([formatSpiffeId(id)], true));
    const request = derSequence(derOid(EXTENSION_REQUEST), derElement(TAG.set, extensions));
    const info = derSequence(
      derInteger(0),
      EMPTY_ORGANISATION,
      key.spkiDer,
      derElement(contextTag(0), request),
    );
    return signed(info, key, signBytes(info, key));
  },
  readCsr: async (der) => verifyCsr(parseCsr(der)),
  verifyCsr,
  createCertificate: async (spec, issuerKey) => {
    const tbs = tbsCertificate(spec, issuerKey);
    return signed(tbs, issuerKey, await signAside(tbs, issuerKey));
  },
};

async function verifyCsr(csr: UnverifiedCsr): Promise<Csr> {
  assertNotFactorable(csr);
  const { facts, publicKey, signatureAlgorithm, infoDer, signature } = csr;
  if (
    !(await isSignatureValidAside(
      signatureAlgorithm,
      infoDer,
      signature,
      publicKey,
      'csr public key',
    ))
  ) {
    throw invalid('ERR_PARSE', 'csr signature', 'must be made with its own key');
  }
  return facts;
}

function signed(bytes: Uint8Array, key: KeyPair, signature: Uint8Array): Uint8Array {
  return derSequence(bytes, signatureAlgorithmOf(key.algorithm).der, derBitString(signature));
}

function tbsCertificate(spec: CertificateSpec, issuerKey: KeyPair): Uint8Array {
  return derSequence(
    derElement(contextTag(0), derInteger(2)),
    derInteger(spec.serial),
    signatureAlgorithmOf(issuerKey.algorithm).der,
    spec.issuerDer,
    derSequence(derTime(spec.notBeforeAt), derTime(spec.notAfterAt)),
    spec.subjectDer,
    spec.spkiDer,
    derElement(contextTag(3), derSequence(...extensionsOf(spec))),
  );
}

function extensionsOf(spec: CertificateSpec): Uint8Array[] {
  const { profile, subjectKeyId, authorityKeyId } = spec;
  const anonymous = Buffer.compare(spec.subjectDer, EMPTY_NAME) === 0;
  return [
    ...profileExtensions(profile),
    ...encodeKeyIds(subjectKeyId, authorityKeyId),
    ...namesOf(profile, anonymous),
  ];
}

function namesOf(profile: CertificateSpec['profile'], anonymous: boolean): Uint8Array[] {
  if (profile.kind === 'server')
    return [encodeServerNames(profile.dnsNames, profile.ipAddresses, anonymous)];
  return profile.uri === undefined
    ? []
    : [encodeUriNames([profile.uri], anonymous || profile.kind === 'leaf')];
}

function profileExtensions(profile: CertificateSpec['profile']): Uint8Array[] {
  if (profile.kind === 'server') {
    return [
      encodeKeyUsage(['digitalSignature']),
      encodePurposes([PURPOSE.serverAuth]),
      encodeBasicConstraints(false),
    ];
  }
  if (profile.kind === 'leaf') return leafExtensions(profile.keyEncipherment);
  return [
    encodeKeyUsage(['keyCertSign', 'cRLSign']),
    encodeBasicConstraints(true, profile.kind === 'intermediate' ? profile.pathLength : undefined),
  ];
}

const madeLeafExtensions = new Map<boolean, Uint8Array[]>();

/** Made once: they are the same in every leaf, and an authority signs a thousand a second. */
function leafExtensions(keyEncipherment: boolean): Uint8Array[] {
  const made = madeLeafExtensions.get(keyEncipherment) ?? [
    encodeKeyUsage(
      keyEncipherment ? ['digitalSignature', 'keyEncipherment'] : ['digitalSignature'],
    ),
    encodePurposes([PURPOSE.serverAuth, PURPOSE.clientAuth]),
    encodeBasicConstraints(false),
  ];
  madeLeafExtensions.set(keyEncipherment, made);
  return made;
}
