import {
  contextTag,
  derBitString,
  derBoolean,
  derElement,
  derInteger,
  derOctetString,
  derOid,
  derSequence,
  derTime,
  TAG,
} from '../base/der';
import { invalid } from '../base/errors';
import { parseCsr } from './csr';
import type { CertificateEngine, CertificateSpec } from './engine';
import { EXTENSION, KEY_USAGES, type KeyUsage, PURPOSE } from './extensions';
import { generateKeyPair, type KeyPair } from './keys';
import { EMPTY_NAME, EMPTY_ORGANISATION } from './name';
import { createKeyObject, parsePublicKey } from './public-key';
import { isSignatureValid, signatureAlgorithmOf, signBytes } from './signature';
import { formatSpiffeId } from './spiffe-id';

const EXTENSION_REQUEST = '1.2.840.113549.1.9.14';

/** Our own DER on node:crypto, without any package: what the agent starts fastest and smallest with. */
export const directEngine: CertificateEngine = {
  name: 'direct',
  generateKeyPair,
  createCsr: async (key, id) => {
    const extensions = derSequence(subjectAltName([formatSpiffeId(id)], true));
    const request = derSequence(derOid(EXTENSION_REQUEST), derElement(TAG.set, extensions));
    const info = derSequence(derInteger(0), EMPTY_ORGANISATION, key.spkiDer, derElement(contextTag(0), request));
    return signed(info, key);
  },
  readCsr: async (der) => {
    const csr = parseCsr(der);
    const key = createKeyObject(parsePublicKey(csr.spkiDer, 'csr public key'), 'csr public key');
    if (!isSignatureValid(csr.signatureAlgorithm, csr.infoDer, csr.signature, key)) {
      throw invalid('ERR_PARSE', 'csr signature', 'must be made with its own key');
    }
    return csr.facts;
  },
  createCertificate: async (spec, issuerKey) => signed(tbsCertificate(spec, issuerKey), issuerKey),
};

function signed(bytes: Uint8Array, key: KeyPair): Uint8Array {
  return derSequence(bytes, signatureAlgorithmOf(key.algorithm).der, derBitString(signBytes(bytes, key)));
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
  const { profile } = spec;
  const subjectCritical = Buffer.compare(spec.subjectDer, EMPTY_NAME) === 0;
  return [
    ...profileExtensions(profile),
    extension(EXTENSION.subjectKeyId, false, derOctetString(spec.subjectKeyId)),
    extension(EXTENSION.authorityKeyId, false, derSequence(derElement(contextTag(0, 'primitive'), spec.authorityKeyId))),
    ...(profile.uri === undefined ? [] : [subjectAltName([profile.uri], subjectCritical || profile.kind === 'leaf')]),
  ];
}

function profileExtensions(profile: CertificateSpec['profile']): Uint8Array[] {
  if (profile.kind === 'leaf') {
    return [
      extension(
        EXTENSION.keyUsage,
        true,
        keyUsageBits(profile.keyEncipherment ? ['digitalSignature', 'keyEncipherment'] : ['digitalSignature']),
      ),
      extension(EXTENSION.extendedKeyUsage, false, derSequence(derOid(PURPOSE.serverAuth), derOid(PURPOSE.clientAuth))),
      extension(EXTENSION.basicConstraints, true, derSequence()),
    ];
  }
  const pathLength = profile.kind === 'intermediate' ? [derInteger(profile.pathLength)] : [];
  return [
    extension(EXTENSION.keyUsage, true, keyUsageBits(['keyCertSign', 'cRLSign'])),
    extension(EXTENSION.basicConstraints, true, derSequence(derBoolean(true), ...pathLength)),
  ];
}

function extension(oid: string, critical: boolean, value: Uint8Array): Uint8Array {
  return derSequence(derOid(oid), ...(critical ? [derBoolean(true)] : []), derOctetString(value));
}

function subjectAltName(uris: readonly string[], critical: boolean): Uint8Array {
  const names = uris.map((uri) => derElement(contextTag(6, 'primitive'), Buffer.from(uri, 'latin1')));
  return extension(EXTENSION.subjectAltName, critical, derSequence(...names));
}

/** DER of a KeyUsage: as many bits as reach the last set one (X.690 section 11.2.2). */
function keyUsageBits(usages: readonly KeyUsage[]): Uint8Array {
  const set = usages.map((usage) => KEY_USAGES.indexOf(usage));
  const count = Math.max(...set) + 1;
  const octets = Buffer.alloc(Math.ceil(count / 8));
  for (const bit of set) octets[bit >> 3]! |= 0x80 >> (bit & 7);
  return derBitString(octets, octets.length * 8 - count);
}
