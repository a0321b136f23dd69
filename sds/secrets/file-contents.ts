import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { constants } from 'node:fs';
import { open, realpath } from 'node:fs/promises';
import { resolve, sep } from 'node:path';
import { AgentError, invalid, systemCode } from '../../agent/base/errors';
import { readPem } from '../../agent/base/pem';
import { certificatesPem, parseRootBundle } from '../../agent/identity/certificate';
import { nextChangeAt, rootsValidAt } from '../../agent/identity/valid-now';
import { LIMITS } from '../grpc/limits';
import type { FileName } from './resource-name';
import { certificateResource, rootsResource, type SecretResource } from './secret-resource';

export interface LoadedFiles {
  /** Undefined where no root of the file is valid now. */
  readonly resource: SecretResource | undefined;
  /** Certificates of a root file that were left out, each with its reason. */
  readonly skipped: readonly string[];
  /** When a certificate of a root file begins or ends next, so that the file gives another resource; epoch milliseconds, or infinite. */
  readonly changesAt: number;
}

/** Where distributions keep the roots of the public web, most common first. */
const SYSTEM_ROOTS = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/pki/tls/cacert.pem',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/** The paths behind a name, absolute. */
export function pathsOf(name: FileName): readonly string[] {
  switch (name.kind) {
    case 'certificate-files':
      return [resolve(name.certificatePath), resolve(name.keyPath)];
    case 'root-file':
      return [resolve(name.path)];
    case 'system-roots':
      return SYSTEM_ROOTS;
  }
}

/** Whether the paths of a name, as written, lie below one of the directories. Public roots of the system are always allowed. */
export function isBelow(name: FileName, dirs: readonly string[]): boolean {
  if (name.kind === 'system-roots') return dirs.length > 0;
  return pathsOf(name).every((path) => dirs.some((dir) => contains(resolve(dir), path)));
}

/**
 * Reads and judges the files of a name. Of a root file goes out what is valid at that moment, in the order in which a proxy is to try it.
 *
 * @param at  Epoch milliseconds.
 * @throws AgentError ERR_SECRET_UNKNOWN where a symbolic link leads out of the allowed directories; ERR_FILE_SOURCE (retry soon) where a
 *         file is missing, unreadable, too large, not a regular file, malformed, or where key and certificate do not belong together.
 */
export async function loadFiles(
  text: string,
  name: FileName,
  dirs: readonly string[],
  at: number,
): Promise<LoadedFiles> {
  switch (name.kind) {
    case 'certificate-files': {
      const [certificatePath, keyPath] = pathsOf(name) as [string, string];
      const [certificate, key] = [
        await readAllowed(certificatePath, dirs),
        await readAllowed(keyPath, dirs),
      ];
      return {
        resource: certificateFiles(text, certificate, key, certificatePath, keyPath, at),
        skipped: [],
        changesAt: Number.POSITIVE_INFINITY,
      };
    }
    case 'root-file': {
      const [path] = pathsOf(name) as [string];
      return rootFile(text, await readAllowed(path, dirs), path, at);
    }
    case 'system-roots':
      return loadSystemRoots(text, at);
  }
}

async function loadSystemRoots(text: string, at: number): Promise<LoadedFiles> {
  for (const path of SYSTEM_ROOTS) {
    try {
      return rootFile(text, await readRegular(path), path, at);
    } catch (caught) {
      if (systemCode((caught as Error).cause) !== 'ENOENT') throw caught;
    }
  }
  throw new AgentError(
    'ERR_FILE_SOURCE',
    'read the roots of the system: none of the usual files exists',
    { retry: 'soon' },
  );
}

function certificateFiles(
  text: string,
  chain: Buffer,
  key: Buffer,
  chainPath: string,
  keyPath: string,
  at: number,
): SecretResource {
  return asFileError(chainPath, () => {
    // By the runtime's reader, not our strict one: these certificates may be anything that Envoy knows how to use.
    const certificates = readPem(chain, chainPath).map((block) => {
      if (block.label !== 'CERTIFICATE')
        throw invalid(
          'ERR_FILE_SOURCE',
          chainPath,
          `must hold certificates only, not ${block.label}`,
        );
      return new X509Certificate(block.der);
    });
    const leaf = certificates[0]!;
    if (!leaf.checkPrivateKey(readKey(key, keyPath))) {
      throw invalid(
        'ERR_FILE_SOURCE',
        keyPath,
        `must be the key of the certificate in ${chainPath}`,
      );
    }
    const chainPem = certificatesPem(certificates.map((each) => each.raw));
    return certificateResource(
      text,
      { chainPem, keyPem: key, serial: leaf.serialNumber.toLowerCase() },
      at,
    );
  });
}

function readKey(pem: Buffer, path: string): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch {
    // Without its cause: what OpenSSL says of a key is not for a log.
    throw invalid('ERR_FILE_SOURCE', path, 'must be a private key in PEM without a passphrase');
  }
}

function rootFile(text: string, pem: Buffer, path: string, at: number): LoadedFiles {
  return asFileError(path, () => {
    const { bundle, skipped } = parseRootBundle(pem, path);
    const valid = rootsValidAt(bundle, undefined, at);
    const withheld = valid.withheld.map(
      ({ certificate, because }) => `${certificate.subject || certificate.sha256}: ${because}`,
    );
    return {
      resource:
        valid.bundle && rootsResource(text, certificatesPem(valid.bundle.rootsDer), undefined, at),
      skipped: [...skipped, ...withheld],
      changesAt: nextChangeAt([], [bundle], [], at),
    };
  });
}

function asFileError<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (caught) {
    if (caught instanceof AgentError && caught.code === 'ERR_FILE_SOURCE') throw caught;
    throw new AgentError('ERR_FILE_SOURCE', `read ${path}: unusable`, {
      retry: 'soon',
      cause: caught,
    });
  }
}

/** Reads a file that is below one of the directories, also after every symbolic link on the way is followed. */
async function readAllowed(path: string, dirs: readonly string[]): Promise<Buffer> {
  let real: string;
  try {
    real = await realpath(path);
  } catch (caught) {
    throw unreadable(path, caught);
  }
  for (const dir of dirs) {
    // A directory that does not exist holds nothing.
    const realDir = await realpath(dir).catch(() => undefined);
    if (realDir !== undefined && contains(realDir, real)) return readRegular(real);
  }
  throw new AgentError(
    'ERR_SECRET_UNKNOWN',
    `read ${path}: a symbolic link leads out of the allowed directories`,
    {
      hint: 'allow the directory that holds the file itself',
    },
  );
}

async function readRegular(path: string): Promise<Buffer> {
  try {
    // NONBLOCK, so that opening a FIFO does not wait for its writer; NOFOLLOW, as every link was followed and judged before.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
    try {
      const { size } = await regularStat(file, path);
      const bytes = Buffer.alloc(size);
      const { bytesRead } = await file.read(bytes, 0, size, 0);
      return bytes.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (caught) {
    throw unreadable(path, caught);
  }
}

async function regularStat(
  file: { stat(): Promise<{ isFile(): boolean; size: number }> },
  path: string,
): Promise<{ size: number }> {
  const found = await file.stat();
  if (!found.isFile())
    throw invalid('ERR_FILE_SOURCE', path, 'must be a regular file', { retry: 'soon' });
  if (found.size > LIMITS.fileBytes) {
    throw invalid('ERR_FILE_SOURCE', path, `must not be longer than ${LIMITS.fileBytes} bytes`, {
      retry: 'soon',
    });
  }
  return found;
}

function unreadable(path: string, caught: unknown): AgentError {
  if (caught instanceof AgentError) return caught;
  return new AgentError('ERR_FILE_SOURCE', `read ${path}: ${systemCode(caught) ?? 'failed'}`, {
    retry: 'soon',
    cause: caught,
  });
}

function contains(dir: string, path: string): boolean {
  return path.startsWith(dir.endsWith(sep) ? dir : `${dir}${sep}`);
}
