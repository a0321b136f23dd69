import { closeSync, constants, fstatSync, lstatSync, openSync, readlinkSync, type Stats } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { AgentError } from '../base/errors';
import { isOurs, O_PATH, openDirectory } from '../base/open-directory';
import { isOnReadOnlyMount } from '../base/read-only-mount';

/** As many symbolic links as Linux follows in one path (path_resolution(7)). */
const MAX_LINKS = 40;

/**
 * Refuses settings that users other than root and this process's own may write: a file, a directory in which they could put files, or a
 * directory on the path to it, links followed. What lies on a read-only mount, such as a ConfigMap, is nobody's to write, whatever its mode
 * says.
 *
 * @param what  For the error, e.g. `workloads /etc/keyturn/workloads`.
 * @throws      AgentError ERR_CONFIG with the place and a remedy; the system's error where the path leads nowhere.
 */
export function assertOursToWrite(path: string, what: string): void {
  let next: string | undefined = resolve(path);
  for (let links = 0; next !== undefined && links <= MAX_LINKS; links += 1) next = judgeOne(next, what);
}

/** The same for a file in a directory that was judged already. Most are no links, and cost one call. What is gone says so when it is read. */
export function assertFileOursToWrite(path: string, what: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found && (found.isSymbolicLink() || writersOf(found))) assertOursToWrite(path, what);
}

/** Judges the directories on the way, and what lies at the end; returns where that leads to if it is a link. */
function judgeOne(path: string, what: string): string | undefined {
  const directory = openDirectory(dirname(path));
  try {
    if (directory.risk) throw refusal(what, directory.risk.dir, directory.risk.because);
    const name = directory.at(basename(path));
    const end = openSync(name, O_PATH | constants.O_NOFOLLOW);
    try {
      const found = fstatSync(end);
      const because = writersOf(found);
      if (because && !isOnReadOnlyMount(end)) throw refusal(what, path, because);
      return found.isSymbolicLink() ? resolve(directory.real, readlinkSync(name)) : undefined;
    } finally {
      closeSync(end);
    }
  } finally {
    directory.close();
  }
}

function writersOf(found: Stats): string | undefined {
  if (!isOurs(found)) return `it belongs to user ${found.uid}`;
  if (found.isSymbolicLink() || (found.mode & 0o022) === 0) return undefined;
  return (found.mode & 0o002) !== 0 ? 'every user may write to it' : `its group ${found.gid} may write to it`;
}

function refusal(what: string, place: string, because: string): AgentError {
  return new AgentError('ERR_CONFIG', `${what}: other users decide what it says: ${place}: ${because}`, {
    hint: `make it root's or that of the user keyturn runs as, and writable by nobody else (chown, chmod go-w), or mount it read-only`,
  });
}
