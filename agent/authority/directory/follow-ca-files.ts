import { createHash } from 'node:crypto';
import type { Deps } from '../../base/deps';
import { AgentError } from '../../base/errors';
import { reconcileLoop } from '../../base/reconcile-loop';
import { CA_FILES, type CaFiles, caFilePath, readCaFiles } from './ca-files';

/** A set of files is judged once it has stood still for so long: they may be copied one by one, in any order. */
const SETTLE_MS = 100;

/** What is done with the files whenever they may have changed. */
export interface CaFilesJudge {
  /** Takes or refuses a set; rejects with AgentError to refuse. Resolves to when it wants to be asked again at the latest, epoch milliseconds. */
  judge(files: CaFiles): Promise<number>;
  /** A set was refused, or could not be read. */
  refused(error: AgentError): void;
}

/**
 * Reads the CA directory again after every change, and after a refusal again and again with growing waits, until the signal fires.
 *
 * Resolves when the last read has ended. It never makes files: a directory that was emptied under a running CA is a fault to be told, not
 * a new start.
 */
export async function followCaFiles(
  dir: string,
  judge: CaFilesJudge,
  deps: Deps,
  signal: AbortSignal,
): Promise<void> {
  const paths = (Object.keys(CA_FILES) as (keyof typeof CA_FILES)[]).map((file) =>
    caFilePath(dir, file),
  );
  await reconcileLoop(
    {
      watch: async (wake) => {
        // Not needed for the first certificate, and chokidar behind it even less.
        const { watchFiles } = await import('../../base/file-watch');
        return watchFiles(paths, wake, deps);
      },
      look: async () => judge.judge(await readSettled(dir, deps, signal)),
      refused: (caught) => judge.refused(AgentError.from(caught)),
    },
    deps,
    signal,
  );
}

/** The files once two reads in a row agree. */
async function readSettled(dir: string, { clock }: Deps, signal: AbortSignal): Promise<CaFiles> {
  let files = await readCaFiles(dir);
  for (;;) {
    const before = filesVersion(files);
    files.keyPem.reveal().fill(0);
    await clock.sleepUntil(clock.now() + SETTLE_MS, signal);
    files = await readCaFiles(dir);
    if (filesVersion(files) === before) return files;
  }
}

/** Equal versions are equal bytes: SHA-256 over the four files, hex. */
export function filesVersion(files: CaFiles): string {
  const hash = createHash('sha256');
  for (const bytes of [files.keyPem.reveal(), files.certPem, files.chainPem, files.rootPem])
    hash.update(`${bytes.length}:`).update(bytes);
  return hash.digest('hex');
}
