import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { AgentError, type ErrorCode, errorText, invalid, systemCode } from './errors';
import { inTurns, joinSteps } from './steps';

/** Certificates, keys, bundles and tokens are kilobytes. */
const MAX_BYTES = 1 << 20;

export interface ReadLimits {
  /** What is being read, for the error, e.g. `root-cert.pem`. */
  readonly field: string;
  readonly code: ErrorCode;
  /** Default 1 MiB. */
  readonly maxBytes?: number;
}

/**
 * Reads a small regular file whole. Nothing that lies at `path` can make it hang or grow: a FIFO, a device, a directory and a file beyond the
 * limit are refused. Symbolic links are followed, as mounted secrets need.
 *
 * @throws AgentError `limits.code` (retry soon, for files are replaced while we look), with the system error as its cause.
 */
export async function readSmallFile(path: string, limits: ReadLimits): Promise<Buffer> {
  let file: FileHandle | undefined;
  try {
    // O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    if (!(await file.stat()).isFile()) throw refuse(path, limits, 'must be a regular file');
    return await readAtMost(file, path, limits);
  } catch (caught) {
    if (caught instanceof AgentError) throw caught;
    throw new AgentError(limits.code, `read ${path}: ${reason(caught)}`, {
      retry: 'soon',
      field: limits.field,
      cause: caught,
    });
  } finally {
    await file?.close();
  }
}

// By reading, not by the size that stat tells: the file may grow meanwhile, and /proc files have none.
async function readAtMost(file: FileHandle, path: string, limits: ReadLimits): Promise<Buffer> {
  const maxBytes = limits.maxBytes ?? MAX_BYTES;
  const chunks: Buffer[] = [];
  for (let total = 0; ; ) {
    const chunk = Buffer.allocUnsafe(Math.min(maxBytes + 1 - total, 65_536));
    const { bytesRead } = await file.read(chunk, 0, chunk.length, null);
    if (bytesRead === 0) return chunks.length === 1 ? chunks[0]! : inTurns(joinSteps(chunks));
    total += bytesRead;
    if (total > maxBytes) throw refuse(path, limits, `must not be larger than ${maxBytes} bytes`);
    chunks.push(chunk.subarray(0, bytesRead));
  }
}

function refuse(path: string, limits: ReadLimits, rule: string): AgentError {
  return invalid(limits.code, limits.field, `${rule} (${path})`, { retry: 'soon' });
}

function reason(caught: unknown): string {
  return systemCode(caught) === 'ENOENT' ? 'there is no such file' : errorText(caught);
}
