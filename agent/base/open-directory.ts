import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readlinkSync,
  rmdirSync,
  type Stats,
} from 'node:fs';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import { AgentError, type ErrorCode, errorText, systemCode } from './errors';
import { isPrivileged } from './privilege';
import { isOnReadOnlyMount } from './read-only-mount';
import { withUmask } from './umask';

/** A directory that has been opened without following a name that somebody could exchange meanwhile. */
export interface OpenDirectory {
  /** Where it lies, without symbolic links. */
  readonly real: string;
  /** Its names by descriptor: whatever becomes of the path, they lead into this directory. Node.js has no openat(2). */
  at(name: string): string;
  /** What an error says, with the path that was given in place of ours by descriptor. */
  text(caught: unknown): string;
  /** What makes it unsafe: other users who can exchange names on the path. The first of them, with the directory in question. */
  readonly risk: DirectoryRisk | undefined;
  /** Whether the expected owner can exchange a name on the path to it, so that only the descriptor leads there for certain. */
  readonly belowOwner: boolean;
  close(): void;
}

export interface DirectoryRisk {
  readonly dir: string;
  /** As in "DIR can be changed by others: BECAUSE". */
  readonly because: string;
  /** What a person can do about it. */
  readonly hint: string;
}

export interface Refusal {
  /** For the error, e.g. `CA directory /ca`. */
  readonly what: string;
  /** Of the error, e.g. ERR_OUTPUT. */
  readonly code: ErrorCode;
  /** `links`: directories of other users will do, for what is done in them is done by descriptors only. */
  readonly of: 'all' | 'links';
}

export interface OpenDirectoryOptions {
  /** What to say of a path that is unsafe, where this process may change files of other users. Default: it is told, not refused. */
  readonly refuse?: Refusal | undefined;
  /** User whose directories are expected on the path, e.g. of a socket that is made for them. */
  readonly owner?: number | undefined;
  /** Mode of directories that are made where they are missing, exact; default: they are not made. */
  readonly make?: number | undefined;
}

/** Only a handle, needs no permission to read (open(2)); Node.js does not name it. */
export const O_PATH = 0o10000000;
/** As many symbolic links as Linux follows in one path (path_resolution(7)). */
const MAX_LINKS = 40;

/**
 * Opens a directory step by step, as the kernel walks a path, and judges each directory on the way.
 *
 * @throws the system's error, e.g. ENOENT where it is missing; ELOOP, ENOTDIR.
 */
export function openDirectory(path: string, options: OpenDirectoryOptions = {}): OpenDirectory {
  const walk = new Walk(options);
  try {
    walk.go(resolve(path));
    return walk.done(path);
  } catch (caught) {
    walk.close();
    throw caught;
  }
}

/**
 * Refuses to write where another user could exchange names, where this process may change files of other users. What is missing of the path
 * is no error: it is made in what was judged.
 *
 * @param what   For the error, e.g. `CA directory`.
 * @param owner  User whose directories are expected on the path, for what is used by descriptors only.
 * @throws       AgentError with the directory and a remedy.
 */
export function assertTrustedPath(
  path: string,
  what: string,
  code: ErrorCode,
  owner?: number,
): void {
  try {
    openDirectory(path, { owner, refuse: { what: `${what} ${path}`, code, of: 'all' } }).close();
  } catch (caught) {
    // Missing, or no directory: whoever uses it says so.
    if (caught instanceof AgentError) throw caught;
  }
}

/** The last name of a path, and of each path that a link there leads to. */
export interface LastName {
  readonly path: string;
  readonly directory: OpenDirectory;
  readonly found: Stats;
  /** A handle of what has that name, a link itself included. */
  readonly fd: number;
}

/**
 * Follows the links at the end of a path.
 *
 * @param judge  Called with each name on the way, the last one included; what it throws ends the walk.
 * @returns      The path without symbolic links, its own name included.
 * @throws       the system's error, e.g. ENOENT, ELOOP.
 */
export function followLastName(
  path: string,
  options: OpenDirectoryOptions,
  judge: (name: LastName) => void,
): string {
  let at = resolve(path);
  for (let links = 0; links <= MAX_LINKS; links += 1) {
    const directory = openDirectory(dirname(at), options);
    try {
      const name = directory.at(basename(at));
      const fd = openSync(name, O_PATH | constants.O_NOFOLLOW);
      try {
        const found = fstatSync(fd);
        judge({ path: at, directory, found, fd });
        if (!found.isSymbolicLink()) return join(directory.real, basename(at));
      } finally {
        closeSync(fd);
      }
      at = resolve(directory.real, readlinkSync(name));
    } finally {
      directory.close();
    }
  }
  throw Object.assign(new Error(`ELOOP: too many symbolic links, '${path}'`), { code: 'ELOOP' });
}

/**
 * The path of a file without symbolic links, its own name included.
 *
 * @throws AgentError where this process may change files of other users and one of the links could be exchanged by another; the system's error.
 */
export function resolveLinks(path: string, refuse: Refusal): string {
  return followLastName(path, { refuse }, ({ path: at, directory, found }) => {
    if (!found.isSymbolicLink() || !isPrivileged() || (isOurs(found) && !directory.risk)) return;
    const where = `other users can exchange names in ${directory.real}: the symbolic link ${basename(at)} in it`;
    throw new AgentError(refuse.code, `${refuse.what}: ${where}`, {
      hint: `give the path without the link ${at}`,
    });
  });
}

/** Removes an empty directory, and no other than the one of that path. @throws the system's error, e.g. ENOTEMPTY. */
export function removeDirectory(path: string): void {
  const parent = openDirectory(dirname(resolve(path)), {
    refuse: { what: `remove ${path}`, code: 'ERR_OUTPUT', of: 'links' },
  });
  try {
    rmdirSync(parent.at(basename(path)));
  } finally {
    parent.close();
  }
}

class Walk {
  risk: DirectoryRisk | undefined;
  #real = '/';
  #fd: number | undefined;
  #here: Stats | undefined;
  #belowOwner = false;
  #links = 0;

  readonly #refuse: Refusal | undefined;

  constructor(private readonly options: OpenDirectoryOptions) {
    this.#refuse = isPrivileged() ? options.refuse : undefined;
  }

  go(path: string): void {
    this.#enter(openSync('/', O_PATH | constants.O_DIRECTORY), '/');
    let names = path.split('/').filter(Boolean);
    for (let name = names.shift(); name !== undefined; name = names.shift()) {
      const fd = this.#open(name);
      const found = fstatSync(fd);
      if (found.isSymbolicLink()) {
        closeSync(fd);
        names = [...this.#follow(name, found), ...names];
      } else {
        this.#enter(fd, name === '..' ? join(this.#real, '..') : join(this.#real, name));
      }
    }
  }

  done(given: string): OpenDirectory {
    const fd = this.#fd!;
    return {
      real: this.#real,
      at: (name) => `/proc/self/fd/${fd}/${name}`,
      text: (caught) => errorText(caught).replaceAll(/\/proc\/self\/fd\/\d+/g, given),
      risk: this.risk,
      belowOwner: this.#belowOwner,
      close: () => this.close(),
    };
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #open(name: string): number {
    const path = `/proc/self/fd/${this.#fd}/${name}`;
    const flags = O_PATH | constants.O_NOFOLLOW;
    try {
      return openSync(path, flags);
    } catch (caught) {
      const mode = this.options.make;
      if (mode === undefined || systemCode(caught) !== 'ENOENT') throw caught;
      try {
        withUmask(0, () => mkdirSync(path, { mode }));
      } catch (failed) {
        if (systemCode(failed) !== 'EEXIST') throw failed;
      }
      return openSync(path, flags);
    }
  }

  #enter(fd: number, real: string): void {
    const found = fstatSync(fd);
    this.close();
    this.#fd = fd;
    if (!found.isDirectory())
      throw Object.assign(new Error(`ENOTDIR: not a directory, '${real}'`), { code: 'ENOTDIR' });
    this.#real = real;
    this.#belowOwner ||= this.#canExchange(found);
    this.#here = found;
    const risk = riskOf(real, found, this.options.owner);
    if (risk !== undefined && !isOnReadOnlyMount(fd)) this.#tell(risk, 'directory');
  }

  /** Before anything is made below it. */
  #tell(risk: DirectoryRisk, kind: 'directory' | 'link'): void {
    this.risk ??= risk;
    const refuse = this.#refuse;
    if (refuse === undefined || (refuse.of === 'links' && kind === 'directory')) return;
    const { dir, because, hint } = risk;
    throw new AgentError(
      refuse.code,
      `${refuse.what}: other users can exchange names in ${dir}: ${because}`,
      { hint },
    );
  }

  /** Whether the expected owner can put something else in the place of this entry of the directory that is open now. */
  #canExchange(entry: Stats): boolean {
    const { owner } = this.options;
    const here = this.#here;
    if (owner === undefined || here === undefined || owner === process.geteuid?.()) return false;
    return here.uid === owner || ((here.mode & 0o022) !== 0 && entry.uid === owner);
  }

  /** In a directory that all may write to, the kernel keeps a name for its owner: whose link it is decides. */
  #follow(name: string, found: Stats): string[] {
    const here = this.#real;
    this.#links += 1;
    if (this.#links > MAX_LINKS)
      throw Object.assign(new Error(`ELOOP: too many symbolic links, '${here}'`), {
        code: 'ELOOP',
      });
    const target = readlinkSync(`/proc/self/fd/${this.#fd}/${name}`);
    // What was judged of a link that others can exchange may be another when it is read.
    const isExchangeable =
      this.#here !== undefined && riskOf(here, this.#here, undefined) !== undefined;
    if ((!isOurs(found) || isExchangeable) && !isOnReadOnlyMount(this.#fd!)) {
      const because = `the symbolic link ${name} in it${isOurs(found) ? '' : ` belongs to user ${found.uid}`}`;
      this.#tell(
        { dir: here, because, hint: `give the path without the link ${join(here, name)}` },
        'link',
      );
    }
    this.#belowOwner ||= this.#canExchange(found);
    if (isAbsolute(target)) {
      this.#here = undefined;
      this.#enter(openSync('/', O_PATH | constants.O_DIRECTORY), '/');
    }
    return target.split('/').filter((each) => each !== '' && each !== '.');
  }
}

/** Root's files are as good as ours, since root needs no permission. */
export function isOurs({ uid }: Pick<Stats, 'uid'>): boolean {
  return uid === 0 || uid === process.geteuid?.();
}

/**
 * Which users other than root and this process's own may write to something, as in "PATH: BECAUSE"; undefined where none may.
 *
 * @param owner  User who is expected, too.
 */
export function otherWriters(found: Stats, owner?: number): string | undefined {
  if (!isOurs(found) && found.uid !== owner) return `it belongs to user ${found.uid}`;
  if (found.isSymbolicLink() || (found.mode & 0o022) === 0) return undefined;
  return (found.mode & 0o002) !== 0
    ? 'every user may write to it'
    : `its group ${found.gid} may write to it`;
}

function riskOf(dir: string, found: Stats, owner: number | undefined): DirectoryRisk | undefined {
  const because = otherWriters(found, owner);
  if (because === undefined) return undefined;
  if (!isOurs(found) && found.uid !== owner) {
    return {
      dir,
      because,
      hint: `use a directory of root, or run as that user, or chown root ${dir}`,
    };
  }
  // With the sticky bit only the owner of a name may exchange it.
  if ((found.mode & 0o1000) !== 0) return undefined;
  return {
    dir,
    because,
    hint: `chmod ${(found.mode & 0o002) !== 0 ? 'go-w' : 'g-w'} ${dir}, or run as a user without privileges`,
  };
}
