import { join } from 'node:path';
import { publishDir } from '../../agent/base/atomic-dir';
import type { Deps } from '../../agent/base/deps';
import { AgentError, invalid } from '../../agent/base/errors';
import { readSmallFile } from '../../agent/base/read-file';
import { isCa, parseCertificate } from '../../agent/identity/certificate';
import { isSelfSigned } from '../../agent/identity/chain';
import { type LearnedRoot, MAX_LEARNED } from './learned-roots';

const FILE = 'learned-roots.json';

/** Where learned roots of one CA are kept over restarts: a directory of their own, since others keep other files in the state directory. */
export function learnedRootsDir(stateDir: string, ca: string): string {
  return join(stateDir, `${ca}-roots`);
}

/** What was kept. A damaged file is told and forgotten: the next reply brings the roots again. */
export async function loadLearned(dir: string, deps: Deps): Promise<readonly LearnedRoot[]> {
  const path = join(dir, FILE);
  const bytes = await readSmallFile(path, { field: FILE, code: 'ERR_PARSE' }).catch(() => undefined);
  if (!bytes) return [];
  try {
    return parseLearned(bytes);
  } catch (cause) {
    deps.log.warn('kept roots discarded', { file: path, cause });
    return [];
  }
}

function parseLearned(bytes: Buffer): LearnedRoot[] {
  const parsed: unknown = JSON.parse(bytes.toString('utf8'));
  const roots = (parsed as { roots?: unknown } | null)?.roots;
  if (!Array.isArray(roots) || roots.length > MAX_LEARNED) throw invalid('ERR_PARSE', FILE, `must hold up to ${MAX_LEARNED} roots`);
  return roots.map((each: { der?: unknown; voucher?: unknown } | null) => {
    const { der, voucher } = each ?? {};
    if (typeof der !== 'string' || typeof voucher !== 'string') throw invalid('ERR_PARSE', FILE, 'must give each root and its voucher');
    const certificate = parseCertificate(Buffer.from(der, 'base64'), FILE);
    if (!isCa(certificate) || !isSelfSigned(certificate)) throw invalid('ERR_PARSE', FILE, 'must hold roots only');
    return { der: certificate.der, voucher };
  });
}

/** Keeps them; a directory that cannot be written is told, for the roots are still in use. */
export async function saveLearned(dir: string, learned: readonly LearnedRoot[], deps: Deps): Promise<void> {
  const roots = learned.map(({ der, voucher }) => ({ der: Buffer.from(der).toString('base64'), voucher }));
  try {
    await publishDir(dir, [{ name: FILE, bytes: Buffer.from(`${JSON.stringify({ roots }, undefined, 2)}\n`), mode: 0o600 }]);
  } catch (caught) {
    deps.log.warn('learned roots are not kept', { dir, cause: AgentError.from(caught) });
  }
}
