import { open, unlink } from 'node:fs/promises';
import { systemCode } from './errors';

/**
 * Writes a new file, whole or not at all, that survives a power cut once its directory is synced as well. The mode is exact, whatever the
 * umask.
 *
 * @throws a system error; EEXIST where something has the name, also a link.
 */
export async function writeDurably(path: string, bytes: Uint8Array, mode: number): Promise<void> {
  const file = await open(path, 'wx', mode);
  try {
    // The mode above is cut by the umask; this one is exact.
    await file.chmod(mode);
    await file.writeFile(bytes);
    await file.sync();
  } catch (caught) {
    await unlink(path).catch(() => undefined);
    throw caught;
  } finally {
    await file.close();
  }
}

/** Makes the names in a directory durable: what was linked, renamed or removed there. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

const HINTS: Readonly<Record<string, string>> = {
  ENOSPC: 'free some space on its file system',
  EDQUOT: 'free some space in the quota of this user',
  EROFS: 'mount the directory writable, or name another one',
  EACCES: 'make the directory writable for the user that runs the agent',
  EPERM: 'make the directory writable for the user that runs the agent',
};

/** What a person can do where something could not be made in a directory. */
export function writeHint(caught: unknown): string | undefined {
  return HINTS[systemCode(caught) ?? ''];
}
