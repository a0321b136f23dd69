import { join } from 'node:path';
import { publishDir } from '../../agent/base/atomic-dir';
import type { Deps } from '../../agent/base/deps';
import { AgentError, invalid } from '../../agent/base/errors';
import { readSmallFile } from '../../agent/base/read-file';
import { isCa, parseCertificate } from '../../agent/identity/certificate';
import { isSelfSigned } from '../../agent/identity/chain';
import { type LearnedRoot, MAX_LEARNED } from './learned-roots';

const FILE = 'learned-roots.json';

/** What a CA's replies have taught, and the state directory keeps. */
export interface KeptRoots {
  /** For the bundle. */
  readonly learned: readonly LearnedRoot[];
  /** For the TLS of the server that taught them. */
  readonly server: readonly LearnedRoot[];
}

export const NOTHING_LEARNED: KeptRoots = { learned: [], server: [] };

/** Where learned roots of one CA are kept over restarts: a directory of their own, since others keep other files in the state directory. */
export function learnedRootsDir(stateDir: string, ca: string): string {
  return join(stateDir, `${ca}-roots`);
}

/**
 * What was kept. A damaged file is told and forgotten: the next reply brings the roots again. What the server of another address taught of its
 * TLS is left out.
 */
export async function loadLearned(dir: string, address: string, deps: Deps): Promise<KeptRoots> {
  const path = join(dir, FILE);
  const bytes = await readSmallFile(path, { field: FILE, code: 'ERR_PARSE' }).catch(
    () => undefined,
  );
  if (!bytes) return NOTHING_LEARNED;
  try {
    return parseLearned(bytes, address);
  } catch (cause) {
    deps.log.warn('stored roots discarded', { file: path, cause });
    return NOTHING_LEARNED;
  }
}

function parseLearned(bytes: Buffer, address: string): KeptRoots {
  const { roots, server } = (JSON.parse(bytes.toString('utf8')) ?? {}) as {
    roots?: unknown;
    server?: { address?: unknown; roots?: unknown };
  };
  return {
    learned: parseRoots(roots),
    server: server?.address === address ? parseRoots(server.roots) : [],
  };
}

function parseRoots(roots: unknown): LearnedRoot[] {
  if (!Array.isArray(roots) || roots.length > MAX_LEARNED)
    throw invalid('ERR_PARSE', FILE, `must hold up to ${MAX_LEARNED} roots`);
  return roots.map((each: { der?: unknown; voucher?: unknown } | null) => {
    const { der, voucher } = each ?? {};
    if (typeof der !== 'string' || typeof voucher !== 'string')
      throw invalid('ERR_PARSE', FILE, 'must give each root and its voucher');
    const certificate = parseCertificate(Buffer.from(der, 'base64'), FILE);
    if (!isCa(certificate) || !isSelfSigned(certificate))
      throw invalid('ERR_PARSE', FILE, 'must hold roots only');
    return { der: certificate.der, voucher };
  });
}

/** Keeps them; a directory that cannot be written is told, for the roots are still in use. */
export async function saveLearned(
  dir: string,
  address: string,
  { learned, server }: KeptRoots,
  deps: Deps,
): Promise<void> {
  const written = {
    roots: learned.map(formatRoot),
    ...(server.length > 0 && { server: { address, roots: server.map(formatRoot) } }),
  };
  try {
    await publishDir(dir, [
      { name: FILE, bytes: Buffer.from(`${JSON.stringify(written, undefined, 2)}\n`), mode: 0o600 },
    ]);
  } catch (caught) {
    deps.log.warn('storing learned roots failed', { dir, cause: AgentError.from(caught) });
  }
}

function formatRoot({ der, voucher }: LearnedRoot) {
  return { der: Buffer.from(der).toString('base64'), voucher };
}
