import { link, lstat, rename, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { syncDirectory, writeDurably } from './durable-files';
import { AgentError, errorText, invalid, systemCode } from './errors';
import { makeDirectory } from './make-directory';
import { assertTrustedPath } from './open-directory';

/** A file of a set that is to be replaced. */
export interface Replacement {
  readonly path: string;
  readonly bytes: Uint8Array;
  /** Exact, whatever the umask. */
  readonly mode: number;
  /** Of its directory, where that is missing. Default 0755. */
  readonly directoryMode?: number;
}

/**
 * Replaces files of several directories: all of them, or none where anything fails. Everything is on the disk before the first gets its
 * name, so what fails later than that is next to nothing, and is taken back. A crash in between leaves whole files, new ones in the order
 * given: what makes the others count comes last.
 *
 * @throws AgentError ERR_OUTPUT naming the file.
 */
export async function replaceFiles(files: readonly Replacement[]): Promise<void> {
  const undo: (() => Promise<unknown>)[] = [];
  const cleanUp: (() => Promise<unknown>)[] = [];
  try {
    for (const { path } of files) assertTrustedPath(dirname(path), 'write below', 'ERR_OUTPUT');
    for (const file of files) await guarded(file, () => stage(file, cleanUp));
    for (const file of files) await guarded(file, () => exchange(file, undo, cleanUp));
  } catch (caught) {
    for (const step of undo.reverse()) await step().catch(() => undefined);
    throw caught;
  } finally {
    for (const step of cleanUp) await step().catch(() => undefined);
  }
}

const staged = ({ path }: Replacement) => `${path}.${process.pid}.new`;

async function stage(file: Replacement, cleanUp: (() => Promise<unknown>)[]): Promise<void> {
  const found = await lstat(file.path).catch(() => undefined);
  if (found?.isFile() === false)
    throw invalid('ERR_OUTPUT', file.path, 'must be a regular file or missing', {
      hint: 'move it away',
    });
  await makeDirectory(dirname(file.path), file.directoryMode);
  await writeDurably(staged(file), file.bytes, file.mode);
  cleanUp.push(() => unlink(staged(file)));
}

async function exchange(
  file: Replacement,
  undo: (() => Promise<unknown>)[],
  cleanUp: (() => Promise<unknown>)[],
): Promise<void> {
  const { path } = file;
  const old = `${path}.${process.pid}.old`;
  const existed = await link(path, old).then(
    () => true,
    (caught: unknown) => {
      if (systemCode(caught) === 'ENOENT') return false;
      throw caught;
    },
  );
  if (existed) cleanUp.push(() => unlink(old));
  await rename(staged(file), path);
  undo.push(() => (existed ? rename(old, path) : unlink(path)));
  await syncDirectory(dirname(path));
}

async function guarded({ path }: Replacement, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (caught) {
    if (caught instanceof AgentError) throw caught;
    const denied = ['EACCES', 'EPERM'].includes(systemCode(caught) ?? '');
    throw new AgentError('ERR_OUTPUT', `write ${path}: ${errorText(caught)}`, {
      cause: caught,
      ...(denied && { hint: 'run it as root' }),
    });
  }
}
