import { lstatSync } from 'node:fs';
import { AgentError } from '../base/errors';
import { followLastName, otherWriters } from '../base/open-directory';
import { isOnReadOnlyMount } from '../base/read-only-mount';

/**
 * Refuses settings that users other than root and this process's own may write: a file, a directory in which they could put files, or a
 * directory on the path to it, links followed. What lies on a read-only mount, such as a ConfigMap, is nobody's to write, whatever its mode
 * says.
 *
 * @param what  For the error, e.g. `workloads /etc/keyturn/workloads`.
 * @throws      AgentError ERR_CONFIG with the place and a remedy; the system's error where the path leads nowhere.
 */
export function assertOursToWrite(path: string, what: string): void {
  followLastName(path, {}, ({ path: at, directory, found, fd }) => {
    if (directory.risk) throw refusal(what, directory.risk.dir, directory.risk.because);
    const because = otherWriters(found);
    if (because && !isOnReadOnlyMount(fd)) throw refusal(what, at, because);
  });
}

/** The same for a file in a directory that was judged already. Most are no links, and cost one call. What is gone says so when it is read. */
export function assertFileOursToWrite(path: string, what: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found && (found.isSymbolicLink() || otherWriters(found))) assertOursToWrite(path, what);
}

function refusal(what: string, place: string, because: string): AgentError {
  return new AgentError('ERR_CONFIG', `${what}: other users can change it: ${place}: ${because}`, {
    hint: `make it root's or that of the user keyturn runs as, and writable by no other user (chown, chmod go-w), or mount it read-only`,
  });
}
