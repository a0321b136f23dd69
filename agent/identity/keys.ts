import type { KeyObject } from 'node:crypto';
import type { Secret } from '../base/secret';

export const KEY_ALGORITHMS = ['ecdsa-p256', 'ecdsa-p384', 'rsa-2048', 'rsa-3072', 'rsa-4096'] as const;
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
