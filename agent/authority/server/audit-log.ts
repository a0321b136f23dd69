import { type FileHandle, open, realpath, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Deps } from '../../base/deps';
import { syncDirectory } from '../../base/durable-files';
import { AgentError, errorText, invalid, systemCode } from '../../base/errors';
import { iso } from '../../base/iso';
import { openToAppend } from '../../base/open-append';
import { Trouble } from '../../base/trouble';
import { probeWrite } from '../store/probe-write';

/** What an operator may want to be alarmed by, or to count, beside the decision. */
export type AuditEvent =
  /** A one-time token was shown with a second key: two machines hold it. */
  | 'join-token-stolen'
  /** A one-time token was answered once more, for the key that it is bound to. */
  | 'join-token-answered-again'
  /** A certificate that had ended proved its key for one renewal. */
  | 'renewed-after-expiry'
  /** Such a certificate was shown again, for another renewal: two machines hold its key. */
  | 'client-certificate-stolen';

/** One decision. Nothing in it is secret: tokens and keys are not in its type. */
export interface AuditEntry {
  readonly event: AuditEvent | undefined;
  readonly decision: 'issued' | 'refused';
  /** The SPIFFE ID that was proven; undefined where none was. */
  readonly caller: string | undefined;
  /** The authenticator. */
  readonly method: string | undefined;
  /** What it says of the proof, e.g. the serial of a client certificate. */
  readonly proof: Readonly<Record<string, string>> | undefined;
  /** The URI that the request asks for. */
  readonly requested: string | undefined;
  readonly serial: string | undefined;
  /** SHA-256 over the SubjectPublicKeyInfo, lower-case hex. */
  readonly keySha256: string | undefined;
  /** ISO 8601. */
  readonly notAfter: string | undefined;
  /** gRPC status by name. */
  readonly status: string;
  /** Why it was refused, for the operator: the caller is told less. */
  readonly reason: string | undefined;
  readonly peer: string;
}

export interface AuditLog {
  /**
   * Resolves when the line was handed to the kernel, which survives the death of this process.
   *
   * @throws AgentError ERR_OUTPUT (retry soon): there is no trace of the decision, so it must not come into effect.
   */
  write(entry: AuditEntry): Promise<void>;
  /** Why lines cannot be written since the last try; undefined where they can. It is tried again without a decision to write. */
  problem(): AgentError | undefined;
  /** Whether a line could be written now, as far as that can be known. @throws AgentError ERR_OUTPUT (retry soon): it could not. */
  probe(): Promise<void>;
  close(): Promise<void>;
}

export interface AuditOptions {
  /** Made with mode 0600; undefined for lines to `fallback`. */
  readonly path: string | undefined;
  /** At which size a file is put aside; default 64 MiB. */
  readonly maxBytes?: number;
  /** How many of those put aside (`path.1`, the newest, ...) are kept; default 8. */
  readonly keep?: number;
}

const MAX_BYTES = 64 * 1024 * 1024;
const KEEP = 8;
/** How often it is looked at whether somebody else has put the file aside, as logrotate does. */
const LOOK_MS = 1_000;
/** What a directory that others own may forbid says nothing about the file in it. */
const NO_SPACE: readonly string[] = ['ENOSPC', 'EDQUOT', 'EROFS', 'EIO'];

/**
 * Opens the audit log: JSON lines, appended to.
 *
 * @param writeLine  Takes lines where no path is given, e.g. to standard error.
 * @throws           AgentError ERR_CONFIG where the file cannot be opened: what cannot be audited is not started.
 */
export async function openAuditLog(
  options: AuditOptions,
  writeLine: (line: string) => Promise<void>,
  deps: Deps,
): Promise<AuditLog> {
  return new QueuedLog(await openSink(options, writeLine, deps), deps);
}

async function openSink(
  options: AuditOptions,
  writeLine: (line: string) => Promise<void>,
  deps: Deps,
): Promise<Sink> {
  const { path } = options;
  if (path === undefined) return writeLines(writeLine);
  const file = new RotatedFile({ maxBytes: MAX_BYTES, keep: KEEP, ...options, path }, deps);
  await file.open().catch((cause) => {
    const hint = cause instanceof AgentError ? cause.hint : undefined;
    throw invalid(
      'ERR_CONFIG',
      '--audit-log',
      `must be a file that can be written: ${errorText(cause)}`,
      { cause, ...(hint && { hint }) },
    );
  });
  return file;
}

/** Where lines go. */
interface Sink {
  append(lines: string): Promise<void>;
  /** Rejects where an append would. */
  probe(): Promise<void>;
  close(): Promise<void>;
}

function writeLines(write: (line: string) => Promise<void>): Sink {
  return { append: (lines) => write(lines), probe: () => write(''), close: async () => undefined };
}

/** Many decisions at once become one write: what comes while one is under way goes with the next. */
class QueuedLog implements AuditLog {
  #next: { readonly lines: string[]; readonly written: Promise<void> } | undefined;
  #writing: Promise<void> = Promise.resolve();
  #failingSince = 0;
  readonly #trouble: Trouble;

  constructor(
    private readonly sink: Sink,
    private readonly deps: Deps,
  ) {
    const { clock, log } = deps;
    this.#trouble = new Trouble(
      {
        attempt: () => this.#resume(),
        began: (cause) => {
          this.#failingSince = clock.now();
          log.error('audit log write failed, refusing to issue', { cause });
        },
        passed: () => log.info('audit log writes recovered'),
      },
      deps,
    );
  }

  write(entry: AuditEntry): Promise<void> {
    const line = `${JSON.stringify({ time: iso(this.deps.clock.now()), ...entry })}\n`;
    if (this.#next !== undefined) {
      this.#next.lines.push(line);
      return this.#next.written;
    }
    const lines = [line];
    const written = this.#writing.then(endOfTurn).then(() => {
      this.#next = undefined;
      return this.#append(lines.join(''));
    });
    this.#next = { lines, written };
    this.#writing = written.catch(() => undefined);
    return written;
  }

  problem(): AgentError | undefined {
    return this.#trouble.problem();
  }

  async probe(): Promise<void> {
    if (this.#trouble.problem()) return this.#trouble.tryNow();
    await this.#inTurn(() => this.sink.probe()).catch((caught) => {
      throw this.#trouble.failed(caught);
    });
  }

  async close(): Promise<void> {
    await this.#trouble.close();
    await this.#writing;
    await this.sink.close();
  }

  /** A line that says for how long there was no trace of any. */
  #resume(): Promise<void> {
    return this.#inTurn(async () => {
      await this.sink.probe();
      const [time, since] = [this.deps.clock.now(), this.#failingSince].map((at) => iso(at));
      await this.sink.append(`${JSON.stringify({ time, event: 'audit-log-resumed', since })}\n`);
    });
  }

  async #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#writing.then(work);
    this.#writing = done.catch(() => undefined);
    await done.catch((cause) => {
      throw writeError(cause);
    });
  }

  async #append(lines: string): Promise<void> {
    try {
      await this.sink.append(lines);
      this.#trouble.worked();
    } catch (cause) {
      this.deps.metrics.record('ca_audit_failures_total', {});
      throw this.#trouble.failed(writeError(cause));
    }
  }
}

function writeError(cause: unknown): AgentError {
  return new AgentError('ERR_OUTPUT', `write the audit log: ${errorText(cause)}`, {
    retry: 'soon',
    cause,
    hint: 'free some space, or give --audit-log a file that can be written; nothing is issued until then',
  });
}

/** So that all who come in one turn go together. */
function endOfTurn(): Promise<void> {
  return new Promise((turned) => setImmediate(turned));
}

/** A file that is put aside when it is full, and opened anew when somebody else has put it aside. */
class RotatedFile implements Sink {
  #file: FileHandle | undefined;
  #bytes = 0;
  #lookAt = 0;
  /** The last write may have ended within a line. */
  #torn = false;

  constructor(
    private readonly options: Required<AuditOptions> & { readonly path: string },
    private readonly deps: Deps,
  ) {}

  async open(): Promise<void> {
    this.#file = await openToAppend(this.options.path, 'audit log', 'ERR_OUTPUT');
    const { size } = await this.#file.stat();
    this.#bytes = size;
    this.#torn ||= size > 0 && !(await endsLine(this.options.path, size));
  }

  async append(lines: string): Promise<void> {
    const isNew = await this.#openNamed();
    if (!isNew && this.#bytes > 0 && this.#bytes + lines.length > this.options.maxBytes)
      await this.#rotate();
    const bytes = Buffer.from(this.#torn ? `\n${lines}` : lines);
    this.#torn = true;
    await this.#file!.appendFile(bytes);
    this.#torn = false;
    this.#bytes += bytes.length;
  }

  /** By another file beside it: what fails there for want of space would fail here, and only that is known. */
  async probe(): Promise<void> {
    await this.#openNamed();
    if (!(await this.#file!.stat()).isFile()) return;
    await probeWrite(dirname(await realpath(this.options.path))).catch((caught) => {
      if (NO_SPACE.includes(systemCode(caught) ?? '')) throw caught;
    });
  }

  async close(): Promise<void> {
    await this.#file?.sync().catch(() => undefined);
    await this.#file?.close();
    this.#file = undefined;
  }

  /** Makes it anew where somebody has put it aside; true where it was opened now. */
  async #openNamed(): Promise<boolean> {
    await this.#lookForRename();
    if (this.#file !== undefined) return false;
    await this.open();
    return true;
  }

  async #lookForRename(): Promise<void> {
    const now = this.deps.clock.now();
    if (this.#file === undefined || (now < this.#lookAt && now > this.#lookAt - 2 * LOOK_MS))
      return;
    this.#lookAt = now + LOOK_MS;
    const [ours, there] = [
      await this.#file.stat(),
      await stat(this.options.path).catch(() => undefined),
    ];
    if (there?.ino !== ours.ino || there.dev !== ours.dev) await this.close();
  }

  /** `path` becomes `path.1`, and so on; whatever kills us on the way, no line is lost but those of the oldest file. */
  async #rotate(): Promise<void> {
    const { path, keep } = this.options;
    await this.close();
    await rm(`${path}.${keep}`, { force: true });
    for (let number = keep - 1; number >= 1; number -= 1) {
      await rename(`${path}.${number}`, `${path}.${number + 1}`).catch(ignoreMissing);
    }
    if (keep > 0) await rename(path, `${path}.1`);
    else await rm(path);
    await this.open();
    await syncDirectory(dirname(path));
  }
}

async function endsLine(path: string, size: number): Promise<boolean> {
  const file = await open(path, 'r');
  try {
    const last = Buffer.alloc(1);
    await file.read(last, 0, 1, size - 1);
    return last[0] === 0x0a;
  } finally {
    await file.close();
  }
}

function ignoreMissing(caught: unknown): void {
  if ((caught as NodeJS.ErrnoException).code !== 'ENOENT') throw caught;
}
