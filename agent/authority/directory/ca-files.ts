import { constants } from 'node:fs';
import { access, open, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { AgentError, invalid, systemCode } from '../../base/errors';
import { assertTrustedPath } from '../../base/open-directory';
import { Secret } from '../../base/secret';
import { assertPrivate } from './private-files';

/**
 * The files of a CA directory, named as in Istio's `cacerts`: the signer's certificate, its key, the certificates above it, and the roots
 * that everybody trusts. A self-signed root is its own signer; then the first, third and fourth hold the same certificate.
 */
export const CA_FILES = {
  key: 'ca-key.pem',
  cert: 'ca-cert.pem',
  chain: 'cert-chain.pem',
  root: 'root-cert.pem',
} as const;

/** Far above any real bundle: 1 MiB is some 700 roots. */
const MAX_FILE_BYTES = 1 << 20;

/** The four files as bytes, read but not judged. */
export interface CaFiles {
  readonly dir: string;
  readonly keyPem: Secret<Buffer>;
  readonly certPem: Buffer;
  /** May be empty where the signer is a root. */
  readonly chainPem: Buffer;
  readonly rootPem: Buffer;
}

/** The absolute path of one of the files. */
export function caFilePath(dir: string, file: keyof typeof CA_FILES): string {
  return join(resolve(dir), CA_FILES[file]);
}

/** Names of the files that are not there; all of them, in the order of `CA_FILES`, where the directory is new. */
export async function missingCaFiles(dir: string): Promise<string[]> {
  const names = Object.values(CA_FILES);
  const there = await Promise.all(names.map((name) => exists(join(dir, name))));
  return names.filter((_, index) => !there[index]);
}

/**
 * Reads the four files. The directory and the key must belong to us or to root and be open to nobody else; the certificates may be read
 * by anybody but written by us alone. On a read-only mount (a Kubernetes secret) the directory's own mode says nothing and is not judged.
 *
 * @throws AgentError ERR_CA_STATE naming the path and what is wrong with it: missing, too open, another owner, not a file, too large.
 */
export async function readCaFiles(dir: string): Promise<CaFiles> {
  const missing = await missingCaFiles(dir);
  if (missing.length > 0) throw incomplete(dir, missing);
  const readOnly = await assertPrivateDir(dir);
  const read = (file: keyof typeof CA_FILES) =>
    readOne(caFilePath(dir, file), file === 'key' ? 'key' : 'certificate', readOnly);
  const [certPem, chainPem, rootPem] = await Promise.all([
    read('cert'),
    read('chain'),
    read('root'),
  ]);
  // The key last: when another file cannot be read, no key is left lying in memory.
  return { dir, certPem, chainPem, rootPem, keyPem: new Secret(await read('key')) };
}

/**
 * Checks the directory itself, and that no other user can put another one in its place.
 *
 * @returns whether it lies on a read-only mount.
 * @throws  AgentError ERR_CA_STATE.
 */
export async function assertPrivateDir(dir: string): Promise<boolean> {
  const path = resolve(dir);
  const readOnly = await isReadOnly(path);
  const found = await stat(path).catch((cause) => {
    throw unreadable(path, cause);
  });
  if (!found.isDirectory()) throw unfit(path, 'must be a directory');
  if (!readOnly) assertPrivate('directory', path, found, false);
  assertTrustedPath(path, 'CA directory', 'ERR_CA_STATE');
  return readOnly;
}

/** Says which of the four files are not there. */
export function incomplete(dir: string, missing: readonly string[]): AgentError {
  const all = Object.values(CA_FILES);
  const present = all.filter((name) => !missing.includes(name));
  const [what, hint] =
    present.length === 0
      ? [
          `none of ${all.join(', ')} is there`,
          'name the directory of the authority with --ca-dir, or create one: keyturn ca init',
        ]
      : [
          `${missing.join(', ')} missing beside ${present.join(', ')}`,
          'put the missing files there (cert-chain.pem may be empty where ca-cert.pem is a root), or empty the directory to create a new root',
        ];
  return new AgentError('ERR_CA_STATE', `open CA directory ${resolve(dir)}: ${what}`, {
    field: missing.join(', '),
    rule: 'must be there: a CA directory holds all four files or none',
    hint,
  });
}

// Opened first and judged by its descriptor, so that what was judged is what is read; without waiting, should it be a pipe.
async function readOne(
  path: string,
  kind: 'key' | 'certificate',
  readOnly: boolean,
): Promise<Buffer> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause) => {
    throw unreadable(path, cause);
  });
  try {
    const found = await file.stat();
    if (!found.isFile()) throw unfit(path, 'must be a regular file');
    if (found.size > MAX_FILE_BYTES)
      throw unfit(path, `must not be larger than ${MAX_FILE_BYTES} bytes`);
    assertPrivate(kind, path, found, readOnly);
    const bytes = Buffer.alloc(found.size);
    const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
    return bytes.subarray(0, bytesRead);
  } catch (caught) {
    throw caught instanceof AgentError ? caught : unreadable(path, caught);
  } finally {
    await file.close();
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (cause) {
    // A dangling link counts as missing too: that is what a half-done `..data` swap looks like.
    if (systemCode(cause) === 'ENOENT' || systemCode(cause) === 'ENOTDIR') return false;
    throw unreadable(path, cause);
  }
}

async function isReadOnly(path: string): Promise<boolean> {
  try {
    await access(path, constants.W_OK);
    return false;
  } catch (cause) {
    return systemCode(cause) === 'EROFS';
  }
}

function unfit(path: string, rule: string): AgentError {
  return invalid('ERR_CA_STATE', path, rule, {
    hint: `a CA directory holds the files ${Object.values(CA_FILES).join(', ')}`,
  });
}

function unreadable(path: string, cause: unknown): AgentError {
  return new AgentError('ERR_CA_STATE', `read ${path}: ${systemCode(cause) ?? 'failed'}`, {
    cause,
    hint: 'the CA directory and its files must be readable by the user that keyturn runs as',
  });
}
