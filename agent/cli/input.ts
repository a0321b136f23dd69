import { resolve } from 'node:path';
import { assertFileName } from '../base/assert-file-name';
import { AgentError } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import type { Terminal } from './terminal';

/** Bundles of hundreds of certificates fit. */
const MAX_INPUT_BYTES = 4 << 20;

/**
 * Reads a file that a command was given; `-` is standard input.
 *
 * @param maxBytes  Default 4 MiB.
 * @throws          AgentError ERR_INPUT.
 */
export async function readInput(
  path: string,
  terminal: Terminal,
  maxBytes = MAX_INPUT_BYTES,
): Promise<Uint8Array> {
  assertFileName(path, 'ERR_INPUT', 'file');
  if (path !== '-')
    return readSmallFile(resolve(terminal.cwd, path), { field: path, code: 'ERR_INPUT', maxBytes });
  const bytes = await terminal.readStdin(maxBytes);
  if (bytes.length > maxBytes)
    throw new AgentError('ERR_INPUT', `standard input: must not be larger than ${maxBytes} bytes`);
  return bytes;
}
