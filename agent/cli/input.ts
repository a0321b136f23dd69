import { resolve } from 'node:path';
import { AgentError } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import type { Terminal } from './terminal';

/** Bundles of hundreds of certificates fit. */
const MAX_INPUT_BYTES = 4 << 20;

/**
 * Reads a file that a command was given; `-` is standard input.
 *
 * @throws AgentError ERR_INPUT.
 */
export async function readInput(path: string, terminal: Terminal): Promise<Uint8Array> {
  if (path !== '-') return readSmallFile(resolve(terminal.cwd, path), { field: path, code: 'ERR_INPUT', maxBytes: MAX_INPUT_BYTES });
  const bytes = await terminal.readStdin(MAX_INPUT_BYTES);
  if (bytes.length > MAX_INPUT_BYTES) throw new AgentError('ERR_INPUT', `standard input: must not be larger than ${MAX_INPUT_BYTES} bytes`);
  return bytes;
}
