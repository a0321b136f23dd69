import { mkdirSync, readlinkSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { certificatesPem } from '../../agent/identity/certificate';
import { generateKeyPair, type KeyFormat, privateKeyPem } from '../../agent/identity/keys';
import { issueLeaf, type LeafOptions, type TestCa } from './certs';

/** Contents of key.pem, cert-chain.pem and root-cert.pem. */
export type CertFileSet = Readonly<Record<'key.pem' | 'cert-chain.pem' | 'root-cert.pem', Buffer>>;

/** A fresh key with its certificate, right but for `options`. Valid from two minutes before `now` for a day. */
export async function makeCertFiles(
  ca: TestCa,
  now: number,
  options: Partial<LeafOptions> & { format?: KeyFormat } = {},
): Promise<CertFileSet> {
  const key = await generateKeyPair('ecdsa-p256');
  const leaf = issueLeaf(ca, {
    key,
    notBeforeAt: now - 120_000,
    notAfterAt: now + 86_400_000,
    ...options,
  });
  return {
    'key.pem': privateKeyPem(key, options.format ?? 'pkcs8'),
    'cert-chain.pem': certificatesPem([leaf, ...ca.intermediatesDer]),
    'root-cert.pem': certificatesPem(ca.bundle.rootsDer),
  };
}

/** Writes each as a regular file, in place. */
export function writeFiles(dir: string, files: Readonly<Record<string, Buffer>>): void {
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(dir, name), bytes);
}

/** Replaces each by renaming, one after the other. */
export function renameFiles(dir: string, files: Partial<CertFileSet>): void {
  for (const [name, bytes] of Object.entries(files)) {
    writeFileSync(join(dir, `.${name}.new`), bytes);
    renameSync(join(dir, `.${name}.new`), join(dir, name));
  }
}

let versions = 0;

/** What a kubelet does to a mounted secret: a new version, `..data` exchanged, the old version removed. */
export function swapData(dir: string, files: Readonly<Record<string, Buffer>>): void {
  versions += 1;
  const version = `..2026_01_01_00_00_00.${String(versions).padStart(9, '0')}`;
  mkdirSync(join(dir, version));
  writeFiles(join(dir, version), files);
  let previous: string | undefined;
  try {
    previous = readlinkSync(join(dir, '..data'));
  } catch {
    for (const name of Object.keys(files)) symlinkSync(join('..data', name), join(dir, name));
  }
  symlinkSync(version, join(dir, '..data_tmp'));
  renameSync(join(dir, '..data_tmp'), join(dir, '..data'));
  if (previous !== undefined) rmSync(join(dir, previous), { recursive: true });
}
