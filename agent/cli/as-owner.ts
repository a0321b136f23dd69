import { stat } from 'node:fs/promises';

/**
 * Does some work on a directory as the user that it belongs to, where root asks: what root made there would be closed to the authority that
 * runs as that user. For everybody else, and for a directory that is missing, it is just done.
 */
export async function asOwnerOf<T>(dir: string, work: () => Promise<T>): Promise<T> {
  const owner = process.geteuid?.() === 0 ? await stat(dir).catch(() => undefined) : undefined;
  if (owner === undefined || owner.uid === 0) return work();
  process.setegid?.(owner.gid);
  process.seteuid?.(owner.uid);
  try {
    return await work();
  } finally {
    process.seteuid?.(0);
    process.setegid?.(0);
  }
}
