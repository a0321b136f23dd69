import {
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { certificatesPem } from '../../agent/identity/certificate';
import { generateKeyPair, type KeyPair, privateKeyPem } from '../../agent/identity/keys';
import { HOUR_MS, issueLeaf, type TestCa } from './certs';

/** The three files of a mounted identity, as PEM. */
export interface MountedFiles {
  readonly 'cert-chain.pem': Buffer;
  readonly 'key.pem': Buffer;
  readonly 'root-cert.pem': Buffer;
}

/** A new certificate of `ca`, valid for a day, as the files that somebody would mount. The same `key` may be certified again. */
export async function makeMountedFiles(ca: TestCa, key?: KeyPair): Promise<MountedFiles> {
  const pair = key ?? (await generateKeyPair('ecdsa-p256'));
  const leaf = issueLeaf(ca, {
    key: pair,
    notBeforeAt: Date.now() - 60_000,
    notAfterAt: Date.now() + 24 * HOUR_MS,
  });
  return {
    'cert-chain.pem': certificatesPem([leaf, ...ca.intermediatesDer]),
    'key.pem': privateKeyPem(pair, 'pkcs8'),
    'root-cert.pem': certificatesPem(ca.bundle.rootsDer),
  };
}

/** Puts one file in place as careful writers do: written beside, then renamed over. */
export function swapFile(dir: string, name: string, bytes: Uint8Array): void {
  const next = join(dir, `.${name}.next`);
  writeFileSync(next, bytes, { mode: 0o600 });
  renameSync(next, join(dir, name));
}

/** Writes plain files into a directory. */
export function writeFiles(dir: string, files: Partial<MountedFiles>): void {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  for (const [name, bytes] of Object.entries(files))
    writeFileSync(join(dir, name), bytes, { mode: 0o600 });
}

let generation = 0;

/** Publishes the files as a kubelet does: a new directory, `..data` swapped to it, names that link through `..data`, the old one removed. */
export function publishLikeKubelet(dir: string, files: Partial<MountedFiles>): void {
  mkdirSync(dir, { recursive: true });
  generation += 1;
  const version = `..2026_01_01_${generation}`;
  writeFiles(join(dir, version), files);
  symlinkSync(version, join(dir, '..data_tmp'));
  renameSync(join(dir, '..data_tmp'), join(dir, '..data'));
  for (const name of Object.keys(files)) {
    if (!lstatSync(join(dir, name), { throwIfNoEntry: false }))
      symlinkSync(`..data/${name}`, join(dir, name));
  }
  for (const old of readdirSync(dir)) {
    if (old.startsWith('..2026') && old !== version) rmSync(join(dir, old), { recursive: true });
  }
}
