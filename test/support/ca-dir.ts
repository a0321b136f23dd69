import type { KeyObject } from 'node:crypto';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { certificatesPem } from '../../agent/identity/certificate';
import type { TestCa } from './certs';

/** What is to be in a CA directory; a part that is left out stays as it is. */
export interface CaDirContent {
  /** Writes ca-cert.pem, and its key unless `key` is given. */
  readonly signer?: TestCa;
  readonly key?: KeyObject;
  /** Default with `signer`: its intermediates, or itself where it is a root. */
  readonly chain?: readonly TestCa[];
  readonly roots?: readonly TestCa[];
}

/** Writes the files in place one by one, as `cp` does: roots, chain, certificate, key. */
export function writeCaDir(dir: string, content: CaDirContent): void {
  const { signer, key = signer?.privateKey, chain, roots } = content;
  const write = (name: string, ders: readonly Uint8Array[]) =>
    writeFileSync(join(dir, name), certificatesPem(ders));
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  if (roots)
    write(
      'root-cert.pem',
      roots.map(({ certificateDer }) => certificateDer),
    );
  const chainDer = chain?.map(({ certificateDer }) => certificateDer) ?? signer?.intermediatesDer;
  if (chainDer)
    write(
      'cert-chain.pem',
      chainDer.length === 0 && signer && !chain ? [signer.certificateDer] : chainDer,
    );
  if (signer) write('ca-cert.pem', [signer.certificateDer]);
  if (!key) return;
  const path = join(dir, 'ca-key.pem');
  writeFileSync(path, key.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  chmodSync(path, 0o600);
}
