import { mkdirSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { systemCode } from './errors';

/**
 * Makes a directory and the parents that are missing. Unlike `mkdir` with `recursive`, it ends: where the parent exists and the system says
 * ENOENT all the same, as /proc does, Node.js tries again for ever.
 *
 * @param mode  Of every directory that is made, less the umask; default 0755, so none is open for others to write.
 * @returns     The first directory that was made, undefined where all were there.
 * @throws      The system's error; EEXIST where something else lies at the path.
 */
export async function makeDirectory(path: string, mode = 0o755): Promise<string | undefined> {
  const error = tryToMake(path, mode);
  if (error === undefined) return path;
  if (await isDirectory(path)) return undefined;
  if (systemCode(error) !== 'ENOENT' || dirname(path) === path) throw error;
  const first = await makeDirectory(dirname(path), mode);
  const second = tryToMake(path, mode);
  if (second === undefined) return first ?? path;
  // Another process may have made it between the two.
  if (!(await isDirectory(path))) throw second;
  return first;
}

/** Not in another thread: `withUmask` changes the umask for all of them. */
function tryToMake(path: string, mode: number): unknown {
  try {
    mkdirSync(path, { mode });
    return undefined;
  } catch (caught) {
    return caught;
  }
}

async function isDirectory(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
}
