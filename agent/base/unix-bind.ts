import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  type Stats,
} from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { AgentError } from './errors';
import { O_PATH, type OpenDirectory } from './open-directory';
import { isPrivileged } from './privilege';
import { withUmask } from './umask';

/** A name in the file system on which this process listens. */
export interface BoundSocket {
  /** Whether what was found at a name is our socket. */
  is(found: Stats): boolean;
  /** Calls `listener` with errors of accepting, e.g. EMFILE. */
  onError(listener: (cause: unknown) => void): void;
  /**
   * Takes the name away where it is ours, and no more connections. Resolves when the last one has ended. The runtime removes whatever has the
   * name when it closes a listener, so where another thing has it the listener stays, out of reach, until the process ends.
   */
  close(): Promise<void>;
}

export interface SocketAccess {
  readonly mode: number;
  readonly owner?: number | undefined;
  readonly group?: number | undefined;
}

/** `sun_path` has 108 bytes with its NUL (unix(7)). Some runtimes cut a longer path and bind another name, so we count. */
export const MAX_PATH_BYTES = 107;

/**
 * Binds `name` and listens in one turn of the loop. Until owner and mode are set it is open to no user.
 *
 * @param names   By which the kernel may know it, the preferred first; those that do not fit are passed over. They lead into `dir`.
 * @param accept  Takes each connection.
 * @throws        The system's error, e.g. EADDRINUSE; AgentError ERR_SOCKET where another thing has taken the name meanwhile.
 */
export async function bindSocket(
  dir: OpenDirectory,
  name: string,
  names: readonly string[],
  access: SocketAccess,
  backlog: number,
  accept: (socket: Socket) => void,
): Promise<BoundSocket> {
  const shown = names.find((each) => Buffer.byteLength(each) <= MAX_PATH_BYTES) ?? dir.at(name);
  const server = await listenNow(shown, 0o777, backlog, accept);
  try {
    const own = give(dir.at(name), access);
    return new Bound(server, shown, own);
  } catch (caught) {
    server.close();
    throw caught;
  }
}

/** Listens on a socket of mode 0600 for as long as it takes to do something alone. */
export function bindGuard(path: string): Promise<Server> {
  return listenNow(path, 0o177, 1, (socket) => socket.destroy());
}

class Bound implements BoundSocket {
  constructor(
    private readonly server: Server,
    private readonly path: string,
    private readonly own: Stats,
  ) {}

  is(found: Stats): boolean {
    return found.ino === this.own.ino && found.dev === this.own.dev;
  }

  onError(listener: (cause: unknown) => void): void {
    this.server.on('error', listener);
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      const there = lstatSync(this.path, { throwIfNoEntry: false });
      if (there === undefined || this.is(there)) {
        this.server.close(() => resolve());
        return;
      }
      this.server.unref();
      resolve();
    });
  }
}

/** Both runtimes bind and listen before `listen` returns; only the event comes later. */
function listenNow(
  path: string,
  umask: number,
  backlog: number,
  accept: (socket: Socket) => void,
): Promise<Server> {
  const server = createServer(accept);
  const failed = new Promise<never>((_, reject) => server.once('error', reject));
  withUmask(umask, () => server.listen({ path, backlog }));
  void failed.catch(() => undefined);
  return server.listening ? Promise.resolve(server) : failed;
}

/** Gives a socket that was just bound its owner, group and mode, through a descriptor that no exchange of the name can lead elsewhere. */
function give(path: string, { mode, owner, group }: SocketAccess): Stats {
  const fd = openSync(path, O_PATH | constants.O_NOFOLLOW);
  try {
    const found = fstatSync(fd);
    if (!isJustBound(found)) throw new AgentError('ERR_SOCKET', 'another process replaced it');
    const self = `/proc/self/fd/${fd}`;
    if (group !== undefined) chownSync(self, -1, group);
    if (owner !== undefined) chownSync(self, owner, -1);
    chmodSync(self, mode);
    return found;
  } finally {
    closeSync(fd);
  }
}

/** With privileges it has to be what no other user can have made or linked: a socket of ours, of one name, open to no user. */
function isJustBound(found: Stats): boolean {
  if (!found.isSocket()) return false;
  return (
    !isPrivileged() ||
    (found.uid === process.geteuid?.() && found.nlink === 1 && (found.mode & 0o777) === 0)
  );
}

/** Where a socket of `dir` is known to all, unless its path may lead elsewhere meanwhile. */
export function socketNames(
  dir: OpenDirectory,
  name: string,
  given: string,
  absolute: string,
): readonly string[] {
  return dir.belowOwner ? [] : [join(dir.real, name), absolute, given];
}
