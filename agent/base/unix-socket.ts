import { lstatSync, unlinkSync } from 'node:fs';
import type { Server } from 'node:net';
import { basename, dirname, resolve } from 'node:path';
import { accountId } from './account-id';
import type { Deps } from './deps';
import { writeHint } from './durable-files';
import { AgentError, errorText, systemCode } from './errors';
import { everySecond } from './every-second';
import { type OpenDirectory, openDirectory } from './open-directory';
import {
  type BoundSocket,
  bindSocket,
  MAX_PATH_BYTES,
  type SocketAccess,
  socketNames,
} from './unix-bind';
import { guarded } from './unix-guard';
import { probe } from './unix-probe';

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
  /** What may be listening where another process is, for the hint, e.g. `a debugger`. */
  readonly rival?: string;
}

export interface UnixListener {
  readonly path: string;
  /** Why clients do not reach us at the path, undefined where they do. */
  problem(): string | undefined;
  /**
   * Removes the path if it is still ours, then listens no more. Resolves when the last connection has gone: ending those is the caller's
   * part. May be called twice.
   */
  close(): Promise<void>;
}

type SocketDeps = Pick<Deps, 'clock' | 'log'>;

/**
 * Listens on a Unix socket, and listens again within two seconds where its name was removed. It is bound at its path with a mode that lets no
 * user in, and gets owner and mode through a descriptor; of several processes that start at once exactly one gets the path. A socket without
 * a living listener is replaced; anything else stays untouched.
 *
 * @param server  Gets the connections as `connection` events; an `http.Server` is one too. It must not listen itself.
 * @throws        AgentError ERR_SOCKET_IN_USE: a living process listens there. ERR_SOCKET: anything else, with the path and a hint.
 *
 * @example
 *   const server = createServer((request, response) => response.end('hello'));
 *   const socket = await listenUnix({ path: './run/a.sock', mode: 0o600, what: 'a socket' }, server, deps);
 *   await socket.close();
 */
export async function listenUnix(
  options: UnixListenOptions,
  server: Server,
  deps: SocketDeps,
): Promise<UnixListener> {
  checkPath(options);
  const what = `${options.what} ${options.path}`;
  const owner = options.owner === undefined ? undefined : accountId('user', options.owner, what);
  const group = options.group === undefined ? undefined : accountId('group', options.group, what);
  const listener = new ReconciledSocket(
    options,
    { mode: options.mode, owner, group },
    server,
    deps,
  );
  await listener.start();
  return listener;
}

class ReconciledSocket implements UnixListener {
  readonly path: string;
  /** Whatever becomes of the working directory. */
  readonly #absolute: string;
  #bound: BoundSocket | undefined;
  #problem: string | undefined;
  #warned = false;
  #reconciling: Promise<void> | undefined;
  #stopLooking: () => void = () => undefined;
  #closing: Promise<void> | undefined;
  /** Of names that were lost: their connections go on. */
  readonly #lost: Promise<void>[] = [];

  constructor(
    private readonly options: UnixListenOptions,
    private readonly access: SocketAccess,
    private readonly server: Server,
    private readonly deps: SocketDeps,
  ) {
    this.path = options.path;
    this.#absolute = resolve(options.path);
  }

  async start(): Promise<void> {
    await this.#bind();
    this.#stopLooking = everySecond(() => this.#look());
  }

  problem(): string | undefined {
    return this.#problem;
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.#stopLooking();
      await this.#reconciling;
      // The path goes first, while we still answer on it: a new starter never replaces a living socket, so what is removed is ours.
      await Promise.all([this.#bound?.close(), ...this.#lost]);
    })();
    return this.#closing;
  }

  #look(): void {
    if (this.#reconciling || this.#closing || this.#isInPlace()) return;
    this.#reconciling = this.#bindAgain().finally(() => {
      this.#reconciling = undefined;
    });
  }

  #isInPlace(): boolean {
    try {
      const there = lstatSync(this.#absolute, { throwIfNoEntry: false });
      if (there === undefined || !this.#bound?.is(there)) return false;
    } catch {
      return false;
    }
    this.#problem = undefined;
    return true;
  }

  async #bindAgain(): Promise<void> {
    const { log } = this.deps;
    const { what, path } = this.options;
    try {
      await this.#bind();
      this.#problem = undefined;
      log.warn(`${what} was removed and is bound again`, { socket: path });
    } catch (caught) {
      const error = AgentError.from(caught, 'ERR_SOCKET');
      if (this.#problem !== error.message)
        log.error(`${what} cannot be reached by its path`, { socket: path, cause: error });
      this.#problem = error.message;
    }
  }

  async #bind(): Promise<void> {
    const dir = this.#openDirectory();
    let keep = false;
    try {
      this.#warn(dir);
      await guarded(dir, basename(this.#absolute), this.deps.clock, () => this.#bindAlone(dir));
      keep = dir.belowOwner;
    } catch (caught) {
      throw this.#failure(caught);
    } finally {
      // The runtime removes a socket by the name that it bound, which leads through the descriptor.
      if (!keep) dir.close();
    }
  }

  #openDirectory(): OpenDirectory {
    const { what, path } = this.options;
    try {
      const refuse = { what: `${what} ${path}`, code: 'ERR_SOCKET', of: 'all' } as const;
      return openDirectory(dirname(this.#absolute), {
        owner: this.access.owner,
        make: 0o755,
        refuse,
      });
    } catch (err) {
      if (err instanceof AgentError) throw err;
      const hint = 'give a path below a directory that this user may write';
      throw refuse(
        this.options,
        `cannot make the directory ${dirname(this.options.path)}`,
        hint,
        err,
      );
    }
  }

  #warn({ risk }: OpenDirectory): void {
    if (risk === undefined || this.#warned) return;
    const { what, path } = this.options;
    this.#warned = true;
    this.deps.log.warn(`other users can exchange the ${what}`, {
      socket: path,
      dir: risk.dir,
      because: risk.because,
      hint: risk.hint,
    });
  }

  /** Under the guard of the path. */
  async #bindAlone(dir: OpenDirectory): Promise<void> {
    const name = basename(this.#absolute);
    const { options } = this;
    const found = await probe(dir.at(name), this.deps.clock);
    switch (found.kind) {
      case 'live':
        throw inUse(options);
      case 'other':
        throw refuse(
          options,
          `${options.path} is ${found.what}, not a socket`,
          'move it away or choose another path',
        );
      case 'closed': {
        const hint = 'remove it, or run as the user who owns it';
        throw refuse(
          options,
          `cannot tell whether a process listens on ${options.path}`,
          hint,
          found.cause,
        );
      }
      case 'dead':
        unlinkSync(dir.at(name));
    }
    // Before the name is there again: the runtime would remove it together with the listener that has lost it.
    if (this.#bound) this.#lost.push(this.#bound.close());
    this.#bound = undefined;
    const names = socketNames(dir, name, options.path, this.#absolute);
    this.#bound = await bindSocket(
      dir,
      name,
      names,
      this.access,
      options.backlog ?? 511,
      (socket) => {
        if (!this.server.emit('connection', socket)) socket.destroy();
      },
    );
    this.#bound.onError((cause) =>
      this.deps.log.warn('connection not accepted', { socket: options.path, cause }),
    );
  }

  #failure(caught: unknown): AgentError {
    if (caught instanceof AgentError) {
      const { code, hint, message } = caught;
      if (message.startsWith(this.options.what)) return caught;
      return new AgentError(code, `${this.options.what} ${this.path}: ${message}`, {
        cause: caught,
        ...(hint !== undefined && { hint }),
      });
    }
    if (systemCode(caught) === 'EADDRINUSE') return inUse(this.options);
    const { owner, group } = this.options;
    // EINVAL: a user namespace that has no such user.
    if (/^E(PERM|INVAL)$/.test(systemCode(caught) ?? '') && (owner ?? group) !== undefined)
      return cannotGive(this.options, caught);
    const hint = writeHint(caught) ?? 'check the owner and mode of its directory';
    return refuse(
      this.options,
      `cannot bind: ${systemCode(caught) ?? errorText(caught)}`,
      hint,
      caught,
    );
  }
}

function checkPath(options: UnixListenOptions): void {
  const { path } = options;
  if (path.length === 0 || path.includes('\0'))
    throw refuse(options, 'the path is empty or has a NUL byte in it');
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_PATH_BYTES) {
    throw refuse(
      options,
      `the path has ${bytes} bytes, a Unix socket's may have ${MAX_PATH_BYTES}`,
      'choose a shorter path',
    );
  }
}

function cannotGive(options: UnixListenOptions, cause: unknown): AgentError {
  const { owner, group } = options;
  if (owner === undefined) {
    return refuse(
      options,
      `cannot give it to group ${group}`,
      'only root or a member of that group may do this',
      cause,
    );
  }
  return refuse(
    options,
    `cannot give it to user ${owner}`,
    'only root may do this; other users can share a group',
    cause,
  );
}

function inUse(options: UnixListenOptions): AgentError {
  const rival = options.rival === undefined ? '' : `; it may be ${options.rival}`;
  return new AgentError(
    'ERR_SOCKET_IN_USE',
    `${options.what} ${options.path}: a living process listens on it`,
    {
      hint: `stop the other process, or give this one another path${rival}`,
    },
  );
}

function refuse(
  options: UnixListenOptions,
  what: string,
  hint?: string,
  cause?: unknown,
): AgentError {
  return new AgentError('ERR_SOCKET', `${options.what} ${options.path}: ${what}`, {
    ...(hint === undefined ? {} : { hint }),
    cause,
  });
}
