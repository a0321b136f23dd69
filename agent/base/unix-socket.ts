import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  type Stats,
  unlinkSync,
} from 'node:fs';
import { connect, type Server } from 'node:net';
import { basename, dirname, join, resolve } from 'node:path';
import { type Clock, withDeadline } from './clock';
import type { Deps } from './deps';
import { AgentError, systemCode } from './errors';
import { makeDirectory } from './make-directory';

export interface UnixListenOptions {
  /** Where clients connect, at most 107 bytes; missing parent directories are made with mode 0755. */
  readonly path: string;
  /** The socket's exact mode, e.g. 0o600, whatever the umask says. */
  readonly mode: number;
  /** User name or number that is to own the socket; default: the process's own. Only root may give it to another. */
  readonly owner?: string | undefined;
  /** Group name or number that is to own the socket; default: the process's own. */
  readonly group?: string | undefined;
  /** Connections that may wait for `accept`, default 511. */
  readonly backlog?: number;
  /** What is being listened for, for errors and logs, e.g. `sds socket`. */
  readonly what: string;
  /** What may be listening where somebody else is, for the hint, e.g. `a debugger`. */
  readonly rival?: string;
}

export interface UnixListener {
  readonly path: string;
  /**
   * Removes the path if it is still ours, then closes the server. Resolves when its last connection has gone: ending those is the caller's
   * part. May be called twice.
   */
  close(): Promise<void>;
}

/** `sun_path` has 108 bytes with its NUL (unix(7)). Some runtimes cut a longer path and bind another name, so we count. */
const MAX_PATH_BYTES = 107;
/** A live server answers a local connect at once, even when it is stopped: the kernel does it from the backlog. */
const PROBE_MS = 1_000;
/** How long to wait for another starter that is clearing a dead socket away; it needs microseconds. */
const GUARD_WAIT_MS = 2_000;
/** A private directory older than this belongs to a starter that was killed; a living one needs a millisecond. */
const ABANDONED_MS = 10_000;
const MAX_GUARDS = 3;

/**
 * Makes `server` listen on a Unix socket. It is bound in a private directory beside `path`, given its group and mode there, and then linked
 * into place, so nobody can connect before the mode is right, and of several processes that start at once exactly one gets the path. A
 * socket without a living listener is replaced; anything that is not a socket is left alone.
 *
 * @param server  Takes the connections; an `http.Server` is one too. From here on its accept errors (EMFILE) are logged, not thrown.
 * @throws        AgentError ERR_SOCKET_IN_USE: a living process listens there. ERR_SOCKET: anything else, with the path and a hint.
 */
export async function listenUnix(options: UnixListenOptions, server: Server, deps: Pick<Deps, 'clock' | 'log'>): Promise<UnixListener> {
  checkPath(options);
  const parent = dirname(options.path);
  if (!existsSync(`${parent}/.`)) await makeDirectories(parent, options);
  const owner = options.owner === undefined ? undefined : accountId('user', options.owner, options);
  const group = options.group === undefined ? undefined : accountId('group', options.group, options);
  const own = await bindPrivately(options, group, server);
  try {
    await place(own, options.path, options, deps.clock);
    giveAway(own, owner, options);
    await clearGuard(own, options, deps.clock);
  } catch (err) {
    discard(own);
    await closed(server);
    throw err;
  }
  const inode = lstatSync(own);
  discard(own);
  sweep(parent, deps.clock.now());
  server.on('error', (err) => deps.log.warn('connection not accepted', { socket: options.path, cause: err }));
  let closing: Promise<void> | undefined;
  return {
    path: options.path,
    close: () => {
      closing ??= release(options.path, inode, server);
      return closing;
    },
  };
}

async function release(path: string, own: Stats, server: Server): Promise<void> {
  // The path goes first, while we still answer on it: a new starter never replaces a living socket, so what we remove is ours.
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found?.ino === own.ino && found.dev === own.dev) unlinkSync(path);
  await closed(server);
}

function checkPath(options: UnixListenOptions): void {
  const { path } = options;
  if (path.length === 0 || path.includes('\0')) throw refuse(options, 'the path is empty or has a NUL byte in it');
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_PATH_BYTES) {
    throw refuse(options, `the path has ${bytes} bytes, a Unix socket's may have ${MAX_PATH_BYTES}`, 'choose a shorter path');
  }
}

async function makeDirectories(dir: string, options: UnixListenOptions): Promise<void> {
  try {
    const first = await makeDirectory(resolve(dir));
    // Exact, whatever the umask: who may connect is decided by the socket's own mode.
    for (let made = resolve(dir); first !== undefined && made.length >= first.length; made = dirname(made)) chmodSync(made, 0o755);
  } catch (err) {
    throw refuse(options, `cannot make the directory ${dir}`, 'give a path below a directory that this user may write', err);
  }
}

/** Where accounts are listed, by name, a field of no interest, and number. */
const ACCOUNTS = { user: '/etc/passwd', group: '/etc/group' } as const;

/** A user's or group's number by name or number. Read from the files, as Node has no getpwnam and getgrnam. */
function accountId(what: 'user' | 'group', account: string, options: UnixListenOptions): number {
  if (/^\d{1,10}$/.test(account)) return Number(account);
  try {
    for (const line of readFileSync(ACCOUNTS[what], 'utf8').split('\n')) {
      const [name, , id] = line.split(':');
      if (name === account && id !== undefined && /^\d+$/.test(id)) return Number(id);
    }
  } catch (err) {
    throw refuse(options, `cannot look up the ${what} ${account}`, `give the ${what} as a number`, err);
  }
  throw refuse(options, `there is no ${what} ${account} in ${ACCOUNTS[what]}`, `name an existing ${what} or give its number`);
}

/** Binds inside a fresh directory of mode 0700 and returns the socket's path there, its mode and group already final. */
async function bindPrivately(options: UnixListenOptions, group: number | undefined, server: Server): Promise<string> {
  let own: string | undefined;
  let step = 'make a private directory beside it';
  try {
    const dir = mkdtempSync(join(dirname(options.path), PRIVATE_PREFIX));
    // Named like its directory, at random: the runtime unlinks the path that it bound when it closes, and that must never be another's.
    own = join(dir, basename(dir));
    step = 'bind';
    await within(own, (path) => listening(server, path, options.backlog ?? 511));
    step = `give it to group ${options.group}`;
    if (group !== undefined) chownSync(own, -1, group);
    step = `set its mode`;
    chmodSync(own, options.mode);
    return own;
  } catch (err) {
    if (own !== undefined) discard(own);
    if (server.listening) await closed(server);
    const hint = group !== undefined && systemCode(err) === 'EPERM' ? 'only root or a member of that group may do this' : undefined;
    throw refuse(options, `cannot ${step}`, hint ?? 'check the owner and mode of its directory', err);
  }
}

/** After the link: nobody may link a socket that belongs to another user. Until then it is ours, which is stricter. */
function giveAway(own: string, owner: number | undefined, options: UnixListenOptions): void {
  if (owner === undefined) return;
  try {
    chownSync(own, owner, -1);
  } catch (err) {
    unlinkSync(options.path);
    const hint = systemCode(err) === 'EPERM' ? 'only root may do this; other users can share a group' : undefined;
    throw refuse(options, `cannot give it to user ${options.owner}`, hint, err);
  }
}

const PRIVATE_PREFIX = '.keyturn-socket-';

/**
 * Links our living socket to `target`, which the kernel lets one process do. A dead socket in the way is removed by whoever holds its
 * guard: the same kind of link, whose holder is known to be alive because it answers, so that a killed holder blocks nobody.
 */
async function place(own: string, target: string, options: UnixListenOptions, clock: Clock, depth = 0): Promise<void> {
  const giveUpAt = clock.now() + GUARD_WAIT_MS;
  for (;;) {
    if (linked(own, target, options)) return;
    const found = await probe(target, options, clock);
    if (found === 'dead') {
      await removeDead(own, target, options, clock, depth);
    } else if (found === 'live') {
      if (depth === 0 || clock.now() > giveUpAt) throw inUse(options);
      await clock.sleepUntil(clock.now() + 2);
    }
  }
}

/** A guard that outlived its killed holder and that nobody needed since. */
async function clearGuard(own: string, options: UnixListenOptions, clock: Clock): Promise<void> {
  const guard = `${options.path}.lock`;
  if (!lstatSync(guard, { throwIfNoEntry: false })?.isSocket()) return;
  if ((await probe(guard, options, clock)) === 'dead') await removeDead(own, guard, options, clock, 1);
}

async function removeDead(own: string, target: string, options: UnixListenOptions, clock: Clock, depth: number): Promise<void> {
  if (depth === MAX_GUARDS) throw refuse(options, `${target} is left over from processes that were killed`, `remove ${target}`);
  const guard = `${target}.lock`;
  await place(own, guard, options, clock, depth + 1);
  try {
    // Asked again under the guard: from here on only we may remove it, and nothing dead comes to life.
    if ((await probe(target, options, clock)) === 'dead') unlinkSync(target);
  } finally {
    unlinkSync(guard);
  }
}

function linked(own: string, target: string, options: UnixListenOptions): boolean {
  try {
    linkSync(own, target);
    return true;
  } catch (err) {
    if (systemCode(err) === 'EEXIST') return false;
    throw refuse(options, `cannot link it into place as ${target}`, 'check that its file system can hold sockets and links', err);
  }
}

/** Whether somebody listens at `path`. Refuses anything that is not a socket, symbolic links included. */
async function probe(path: string, options: UnixListenOptions, clock: Clock): Promise<'live' | 'dead' | 'gone'> {
  try {
    const found = lstatSync(path);
    if (!found.isSocket()) throw refuse(options, `${path} is ${kindOf(found)}, not a socket`, 'move it away or choose another path');
    await within(path, (reachable) => withDeadline(clock, PROBE_MS, 'probe', undefined, () => connects(reachable)));
    return 'live';
  } catch (err) {
    switch (systemCode(err)) {
      case 'ENOENT':
        return 'gone';
      case 'ECONNREFUSED':
        return 'dead';
      case 'EAGAIN': // a full backlog
      case 'EPROTOTYPE': // a living socket of another type
      case 'ERR_TIMEOUT':
        return 'live';
      case 'EACCES':
        throw refuse(options, `cannot tell whether somebody listens on ${path}`, 'remove it, or run as the user who owns it', err);
      default:
        throw err;
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

/** Calls `use` with a name for `path` that fits into a socket address: itself, or one that goes through its opened directory. */
async function within<T>(path: string, use: (path: string) => Promise<T>): Promise<T> {
  if (Buffer.byteLength(path) <= MAX_PATH_BYTES) return use(path);
  const dir = openSync(dirname(path), 'r');
  try {
    return await use(`/proc/self/fd/${dir}/${basename(path)}`);
  } finally {
    closeSync(dir);
  }
}

function listening(server: Server, path: string, backlog: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ path, backlog }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    if (!server.listening) return resolve();
    server.close(() => resolve());
  });
}

/** Takes the private name of a socket away, and its directory. */
function discard(own: string): void {
  for (const remove of [() => unlinkSync(own), () => rmdirSync(dirname(own))]) {
    try {
      remove();
    } catch (err) {
      if (systemCode(err) !== 'ENOENT') throw err;
    }
  }
}

/** Removes what starters that were killed half-way left in `dir`: private directories with nothing or one socket in them. */
function sweep(dir: string, now: number): void {
  for (const name of namesIn(dir).filter((each) => each.startsWith(PRIVATE_PREFIX))) {
    try {
      const left = join(dir, name);
      if (Math.abs(now - lstatSync(left).mtimeMs) < ABANDONED_MS) continue;
      if (lstatSync(join(left, name), { throwIfNoEntry: false })?.isSocket()) unlinkSync(join(left, name));
      rmdirSync(left);
    } catch {
      // Another user's, or no longer there: not ours to judge, and nothing depends on it.
    }
  }
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch {
    return []; // A directory that we may write but not list.
  }
}

function kindOf(found: Stats): string {
  if (found.isDirectory()) return 'a directory';
  if (found.isSymbolicLink()) return 'a symbolic link';
  return found.isFile() ? 'a regular file' : 'a special file';
}

function inUse(options: UnixListenOptions): AgentError {
  const rival = options.rival === undefined ? '' : `; it may be ${options.rival}`;
  return new AgentError('ERR_SOCKET_IN_USE', `${options.what} ${options.path}: a living process listens on it`, {
    hint: `stop the other process, or give this one another path${rival}`,
  });
}

function refuse(options: UnixListenOptions, what: string, hint?: string, cause?: unknown): AgentError {
  return new AgentError('ERR_SOCKET', `${options.what} ${options.path}: ${what}`, { ...(hint === undefined ? {} : { hint }), cause });
}
