import { spawn } from 'node:child_process';
import { AgentError } from './errors';
import type { Logger } from './log';
import { type SendDatagram, unixDatagrams } from './unix-datagram';

/** What sd_notify(3) calls assignments, e.g. `{ READY: '1', STATUS: 'serving' }`. */
export type Assignments = Readonly<Record<string, string>>;

/** The way to a service manager that wants to be told how this process does. */
export interface NotifySocket {
  /** In order; never throws and waits for nothing. Control characters of values become blanks. */
  tell(assignments: Assignments): void;
  /** Resolves when everything that was told has left, or has failed to. */
  told(): Promise<void>;
}

/** Of a value: a status is one line that people read. */
const MAX_VALUE = 1_000;
/** `sun_path` has 108 bytes with its NUL (unix(7)). */
const MAX_PATH_BYTES = 107;
/** It needs milliseconds; a service manager that does not read must not gather processes. */
const CHILD_MS = 5_000;

/**
 * The socket of `NOTIFY_SOCKET`: a path, or an abstract name after `@`. Datagrams on Unix sockets are not among Node's: the standalone
 * executable sends them by the C library, everything else has the program `systemd-notify` do it, which needs `NotifyAccess=all`.
 *
 * @returns undefined where the name is none of these, with a warning.
 * @see sd_notify(3).
 */
export function openNotifySocket(name: string, log: Logger): NotifySocket | undefined {
  if (!/^[/@]./.test(name) || Buffer.byteLength(name) > MAX_PATH_BYTES) {
    log.warn('service manager not notified: NOTIFY_SOCKET is not a Unix socket', {
      socket: name.slice(0, 200),
    });
    return undefined;
  }
  return new Teller(name, unixDatagrams(name), log);
}

class Teller implements NotifySocket {
  #last: Promise<void> = Promise.resolve();
  #complained = false;

  constructor(
    private readonly name: string,
    private readonly send: SendDatagram | undefined,
    private readonly log: Logger,
  ) {}

  tell(assignments: Assignments): void {
    const lines = Object.entries(assignments).map(([key, value]) => `${key}=${oneLine(value)}`);
    if (this.send?.(Buffer.from(lines.join('\n')))) return;
    // One after the other: the last status must be the one that stays.
    this.#last = this.#last.then(() => this.#tellByChild(lines));
  }

  told(): Promise<void> {
    return this.#last;
  }

  async #tellByChild(lines: readonly string[]): Promise<void> {
    try {
      await runToEnd('systemd-notify', lines, {
        PATH: '/usr/local/bin:/usr/bin:/bin',
        NOTIFY_SOCKET: this.name,
      });
    } catch (caught) {
      if (this.#complained) return;
      this.#complained = true;
      const hint = 'install systemd-notify, use Type=exec, or the standalone executable';
      this.log.warn('service manager notification failed', {
        cause: AgentError.from(caught, 'ERR_SOCKET', { hint }),
      });
    }
  }
}

function runToEnd(program: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<void> {
  return new Promise((done, failed) => {
    const child = spawn(program, args, { env, stdio: 'ignore', timeout: CHILD_MS });
    child.on('error', failed);
    child.on('exit', (code, signal) =>
      code === 0 ? done() : failed(new Error(`${program} ended with ${code ?? signal}`)),
    );
  });
}

function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\x00-\x1f\x7f]+/g, ' ').slice(0, MAX_VALUE);
}
