import { chmodSync, closeSync, constants, fstatSync, openSync, type Stats } from 'node:fs';
import { connect } from 'node:net';
import { type Clock, withDeadline } from './clock';
import { systemCode } from './errors';
import { O_PATH } from './open-directory';
import { isRefusedBySystem } from './unix-connect';

/** What has a socket's name. */
export type Occupant =
  | { readonly kind: 'gone' }
  /** A socket on which a process listens. */
  | { readonly kind: 'live' }
  /** A socket without a listener, and since when, epoch milliseconds. */
  | { readonly kind: 'dead'; readonly sinceAt: number }
  /** A socket that may not be asked. */
  | { readonly kind: 'closed'; readonly cause: unknown }
  /** `what` as in "PATH is a regular file". */
  | { readonly kind: 'other'; readonly what: string };

/** A live server answers a local connect at once, even when it is stopped: the kernel does it from the backlog. */
const PROBE_MS = 1_000;

/** Whether a process listens on the socket of that name. By descriptor: what is asked is what was found, and no symbolic link is followed. */
export async function probe(path: string, clock: Clock): Promise<Occupant> {
  let fd: number;
  try {
    fd = openSync(path, O_PATH | constants.O_NOFOLLOW);
  } catch (caught) {
    if (systemCode(caught) === 'ENOENT') return { kind: 'gone' };
    throw caught;
  }
  try {
    const found = fstatSync(fd);
    return found.isSocket()
      ? await ask(`/proc/self/fd/${fd}`, found, clock)
      : { kind: 'other', what: kindOf(found) };
  } finally {
    closeSync(fd);
  }
}

async function ask(path: string, found: Stats, clock: Clock): Promise<Occupant> {
  try {
    // Ours, of a process that was killed before it gave the socket its mode.
    if (found.uid === process.geteuid?.() && (found.mode & 0o200) === 0) chmodSync(path, 0o600);
    await withDeadline(clock, PROBE_MS, 'probe', undefined, () => connects(path));
    return { kind: 'live' };
  } catch (cause) {
    switch (systemCode(cause)) {
      case 'ENOENT':
        return { kind: 'gone' };
      case 'ECONNREFUSED':
        return isRefusedBySystem(path)
          ? { kind: 'dead', sinceAt: found.ctimeMs }
          : { kind: 'live' };
      case 'EAGAIN': // a full backlog
      case 'ECONNRESET': // closed while we waited to be accepted
      case 'EPROTOTYPE': // a living socket of another type
      case 'ERR_TIMEOUT':
        return { kind: 'live' };
      case 'EACCES':
        return { kind: 'closed', cause };
      default:
        throw cause;
    }
  }
}

function connects(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve();
    });
    socket.on('error', reject);
  });
}

function kindOf(found: Stats): string {
  if (found.isDirectory()) return 'a directory';
  if (found.isSymbolicLink()) return 'a symbolic link';
  return found.isFile() ? 'a regular file' : 'a special file';
}
