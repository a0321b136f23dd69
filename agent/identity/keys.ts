import {
  createPrivateKey,
  createPublicKey,
  generateKeyPair as generateCallback,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto';
import { AgentError, invalid } from '../base/errors';
import { type PemBlock, readPem, writePem } from '../base/pem';
import { Secret } from '../base/secret';
import { parsePublicKey } from './public-key';

export const KEY_ALGORITHMS = [
  'ecdsa-p256',
  'ecdsa-p384',
  'rsa-2048',
  'rsa-3072',
  'rsa-4096',
] as const;
export type KeyAlgorithm = (typeof KEY_ALGORITHMS)[number];

/** How a private key is written as PEM: PKCS#8 (`PRIVATE KEY`), or PKCS#1 / SEC1 (`RSA PRIVATE KEY`, `EC PRIVATE KEY`). */
export type KeyFormat = 'pkcs8' | 'traditional';

/** A key pair of ours. The private half stays in OpenSSL's memory; it is never a JavaScript string. */
export interface KeyPair {
  readonly algorithm: KeyAlgorithm;
  readonly privateKey: Secret<KeyObject>;
  /** SubjectPublicKeyInfo, DER. */
  readonly spkiDer: Uint8Array;
}

const CURVES = { 'ecdsa-p256': 'P-256', 'ecdsa-p384': 'P-384' } as const;

/** Makes a key pair. RSA is made in OpenSSL's threads, since it takes from 50 ms to seconds; ECDSA takes a tenth of a millisecond. */
export async function generateKeyPair(algorithm: KeyAlgorithm): Promise<KeyPair> {
  const { privateKey } =
    algorithm === 'ecdsa-p256' || algorithm === 'ecdsa-p384'
      ? generateKeyPairSync('ec', { namedCurve: CURVES[algorithm] })
      : await generateRsa(Number(algorithm.slice('rsa-'.length)));
  return keyPairOf(privateKey, algorithm);
}

const rsaInTheMaking = new Set<Promise<unknown>>();

function generateRsa(modulusLength: number) {
  const made = new Promise<{ readonly privateKey: KeyObject }>((resolve, reject) =>
    generateCallback('rsa', { modulusLength, publicExponent: 65537 }, (error, _, privateKey) =>
      error ? reject(error) : resolve({ privateKey }),
    ),
  );
  rsaInTheMaking.add(made);
  const over = () => rsaInTheMaking.delete(made);
  made.then(over, over);
  return made;
}

/** RSA keys that threads are busy with; an exit of the process waits for them. */
export function keysInTheMaking(): readonly Promise<unknown>[] {
  return [...rsaInTheMaking];
}

/** A key pair around a private key that is known to be of that algorithm. */
export function keyPairOf(privateKey: KeyObject, algorithm: KeyAlgorithm): KeyPair {
  const spkiDer = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
  return { algorithm, privateKey: new Secret(privateKey), spkiDer };
}

/** The private key as PEM. The caller owns the buffer and may wipe it. */
export function privateKeyPem(key: KeyPair, format: KeyFormat): Buffer {
  const [label, type] =
    format === 'pkcs8'
      ? (['PRIVATE KEY', 'pkcs8'] as const)
      : key.algorithm in CURVES
        ? (['EC PRIVATE KEY', 'sec1'] as const)
        : (['RSA PRIVATE KEY', 'pkcs1'] as const);
  const der = key.privateKey
    .reveal()
    .export({ type, format: 'der' } as { type: 'pkcs8'; format: 'der' });
  const pem = writePem(label, der);
  der.fill(0);
  return pem;
}

const KEY_LABELS: Readonly<Record<string, 'pkcs8' | 'pkcs1' | 'sec1'>> = {
  'PRIVATE KEY': 'pkcs8',
  'RSA PRIVATE KEY': 'pkcs1',
  'EC PRIVATE KEY': 'sec1',
};

/**
 * Reads one unencrypted private key: PKCS#8, PKCS#1 or SEC1 (with the `EC PARAMETERS` block that OpenSSL likes to write before it).
 *
 * @param field  For errors, e.g. `key.pem`.
 * @throws       AgentError ERR_PARSE: not exactly one key, damaged, halves that do not belong together, or not one of `KEY_ALGORITHMS`.
 */
export function readPrivateKey(pem: Uint8Array, field: string): KeyPair {
  const blocks = readPem(pem, field, { maxBytes: 64 * 1024, maxBlocks: 4 });
  try {
    return readBlocks(blocks, field);
  } finally {
    for (const block of blocks) block.der.fill(0);
  }
}

function readBlocks(blocks: readonly PemBlock[], field: string): KeyPair {
  const keys = blocks.filter((block) => block.label !== 'EC PARAMETERS');
  const [block] = keys;
  if (block === undefined || keys.length > 1)
    throw invalid('ERR_PARSE', field, 'must hold exactly one private key');
  const type = KEY_LABELS[block.label];
  if (type === undefined) {
    throw invalid(
      'ERR_PARSE',
      field,
      `must be PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY, not ${block.label}`,
    );
  }
  const privateKey = openPrivateKey(block.der, type, field);
  const pair = keyPairOf(privateKey, algorithmOf(privateKey, field));
  const message = Buffer.from('keyturn');
  // A damaged file may carry a public half of another key, and OpenSSL takes its word for it.
  if (
    !verify('sha256', message, createPublicKey(privateKey), sign('sha256', message, privateKey))
  ) {
    throw invalid('ERR_PARSE', field, 'must be a private key with its own public half');
  }
  return pair;
}

function openPrivateKey(der: Buffer, type: 'pkcs8' | 'pkcs1' | 'sec1', field: string): KeyObject {
  try {
    return createPrivateKey({ key: der, format: 'der', type });
  } catch {
    // OpenSSL's own words are about its decoders, and an error must not carry input that may hold a key.
    throw invalid('ERR_PARSE', field, 'must be a valid private key');
  }
}

function algorithmOf(privateKey: KeyObject, field: string): KeyAlgorithm {
  const facts = parsePublicKey(
    createPublicKey(privateKey).export({ type: 'spki', format: 'der' }),
    field,
  );
  const found = KEY_ALGORITHMS.find((algorithm) =>
    algorithm in CURVES
      ? facts.text === `ECDSA ${CURVES[algorithm as keyof typeof CURVES]}`
      : facts.text === `RSA ${algorithm.slice(4)}`,
  );
  if (found === undefined || facts.weakness !== undefined) {
    const rule =
      found === undefined
        ? 'must be ECDSA P-256 or P-384, or RSA of 2048, 3072 or 4096 bits'
        : facts.weakness!;
    const kind = facts.kind === 'other' ? (privateKey.asymmetricKeyType ?? facts.text) : facts.text;
    throw new AgentError('ERR_PARSE', `${field}: is ${kind}: ${rule}`, {
      field,
      rule,
      hint: 'make another, e.g. with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256',
    });
  }
  return found;
}
