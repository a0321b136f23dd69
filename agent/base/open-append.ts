import { constants, lstatSync, realpathSync, type Stats } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { AgentError, type ErrorCode, systemCode } from './errors';
import { assertTrustedPath, isOurs } from './open-directory';
import { isPrivileged } from './privilege';

const FLAGS = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT;

/**
 * Opens a file to append to, made with mode 0600 where it is missing. Where this process may change files of other users, neither the path, nor
 * a link at its end, nor the file may be another user's: also in a directory like /tmp, where anybody can make that name first.
 *
 * @param what  For the error, e.g. `audit log`.
 * @throws      AgentError of that code with a remedy; else the system's error.
 */
export async function openToAppend(
  path: string,
  what: string,
  code: ErrorCode,
): Promise<FileHandle> {
  const absolute = resolve(path);
  assertTrustedPath(dirname(absolute), `directory of the ${what}`, code);
  const file = await openNoLink(absolute, code, what);
  const found = await file.stat();
  if (!found.isFile() || !isForeign(found)) return file;
  await file.close();
  throw foreign(path, found, code, what);
}

async function openNoLink(path: string, code: ErrorCode, what: string): Promise<FileHandle> {
  try {
    return await open(path, FLAGS | constants.O_NOFOLLOW, 0o600);
  } catch (caught) {
    const found = lstatSync(path, { throwIfNoEntry: false });
    // Which the kernel refuses by itself in directories like /tmp, with other words (fs.protected_symlinks).
    if (found && isForeign(found)) throw foreign(path, found, code, what);
    if (systemCode(caught) !== 'ELOOP') throw caught;
  }
  // A link of ours, such as /dev/stdout, in a directory where no other user can exchange it.
  const target = whereTo(path);
  if (target !== undefined) assertTrustedPath(dirname(target), `directory of the ${what}`, code);
  return open(path, FLAGS, 0o600);
}

function isForeign(found: Stats): boolean {
  return isPrivileged() && !isOurs(found);
}

function foreign(path: string, found: Stats, code: ErrorCode, what: string): AgentError {
  const kind = found.isSymbolicLink() ? 'a symbolic link' : 'a file';
  return new AgentError(code, `${what} ${path}: it is ${kind} of user ${found.uid}`, {
    hint: 'move it away, or give another path',
  });
}

/** Undefined for what has no path, such as a pipe. */
function whereTo(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}
