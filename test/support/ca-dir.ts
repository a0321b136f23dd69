import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { certificatesPem, parseCertificate } from '../../agent/identity/certificate';
import { directEngine } from '../../agent/identity/direct-engine';
import type { CertificateSpec } from '../../agent/identity/engine';
import { type KeyAlgorithm, type KeyPair, privateKeyPem } from '../../agent/identity/keys';
import { encodeName } from '../../agent/identity/name';
import { keyIdentifier } from '../../agent/identity/public-key';
import { randomSerial } from '../../ca-client/builtin/serial';

/** A CA certificate with its key, for tests that fill CA directories themselves. */
export interface CaPair {
  readonly key: KeyPair;
  readonly der: Uint8Array;
}

export interface CaPairOptions {
  readonly algorithm?: KeyAlgorithm;
  /** Default: self-signed. */
  readonly issuer?: CaPair;
  readonly name?: string;
  readonly uri?: string;
  readonly pathLength?: number;
  /** Epoch milliseconds. Default: an hour ago, and a year. */
  readonly notBeforeAt?: number;
  readonly notAfterAt?: number;
  /** Signs this key instead of a new one. */
  readonly key?: KeyPair;
  /** Makes a leaf of it. */
  readonly leaf?: boolean;
}

/** Makes a root, or an intermediate where an issuer is given. */
export async function makeCaPair(options: CaPairOptions = {}): Promise<CaPair> {
  const key = options.key ?? (await directEngine.generateKeyPair(options.algorithm ?? 'ecdsa-p256'));
  const subjectDer = encodeName([['O', options.name ?? 'cluster.local']]);
  const subjectKeyId = keyIdentifier(key.spkiDer);
  const issuer = options.issuer && parseCertificate(options.issuer.der);
  const { uri, pathLength = 2 } = options;
  const spec: CertificateSpec = {
    serial: randomSerial(),
    issuerDer: issuer?.subjectDer ?? subjectDer,
    subjectDer,
    notBeforeAt: seconds(options.notBeforeAt ?? Date.now() - 3_600_000),
    notAfterAt: seconds(options.notAfterAt ?? Date.now() + 365 * 86_400_000),
    spkiDer: key.spkiDer,
    authorityKeyId: issuer?.subjectKeyId ?? subjectKeyId,
    subjectKeyId,
    profile: options.leaf
      ? { kind: 'leaf', uri: 'spiffe://cluster.local/leaf', keyEncipherment: false }
      : issuer || options.pathLength !== undefined
        ? { kind: 'intermediate', pathLength, uri }
        : { kind: 'root', uri },
  };
  return { key, der: await directEngine.createCertificate(spec, options.issuer?.key ?? key) };
}

/** The four files of a CA directory; leave one out to leave it as it is. */
export interface CaDirContent {
  readonly signer?: CaPair;
  readonly key?: KeyPair;
  readonly chain?: readonly CaPair[];
  readonly roots?: readonly CaPair[];
}

/** Writes the files one by one in place, as `cp` does: root, chain, certificate, key. */
export function writeCaDir(dir: string, { signer, key = signer?.key, chain, roots }: CaDirContent): void {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  if (roots) writeFileSync(join(dir, 'root-cert.pem'), certificatesPem(roots.map(({ der }) => der)));
  if (chain) writeFileSync(join(dir, 'cert-chain.pem'), certificatesPem(chain.map(({ der }) => der)));
  if (signer) writeFileSync(join(dir, 'ca-cert.pem'), certificatesPem([signer.der]));
  if (!key) return;
  writeFileSync(join(dir, 'ca-key.pem'), privateKeyPem(key, 'pkcs8'), { mode: 0o600 });
  chmodSync(join(dir, 'ca-key.pem'), 0o600);
}

const seconds = (at: number) => Math.floor(at / 1_000) * 1_000;
