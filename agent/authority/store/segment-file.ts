import { type FileHandle, open } from 'node:fs/promises';
import { parseCheckedLine } from './checked-line';
import type { IssuedEntry } from './store';
import { damaged } from './store-error';

const CHUNK_BYTES = 256 * 1024;
/** Far above a full batch; what has no newline for so long is no line of ours. */
const MAX_LINE_BYTES = 8 * 1024 * 1024;
const NEWLINE = 0x0a;

/**
 * Reads a segment of the register and calls `visit` with each batch, in order.
 *
 * A batch that is damaged and has no good one behind it is what a writer left that was killed or cut off from power while it wrote: nobody
 * was told that it was written, so it is passed over. Before a good one it is damage, because a writer goes on only after the batch before
 * is on disk.
 *
 * @returns  Where the good part ends; undefined where that is the end of the file.
 * @throws   AgentError ERR_CA_STATE naming the file and the byte; system errors as they are.
 */
export async function readSegment(
  path: string,
  visit: (batch: readonly IssuedEntry[]) => void,
): Promise<number | undefined> {
  const file = await open(path, 'r');
  try {
    let brokenAt: number | undefined;
    for await (const { line, offset } of linesOf(file)) {
      const batch = line && (parseCheckedLine(line) as readonly IssuedEntry[] | undefined);
      if (batch === undefined) brokenAt ??= offset;
      else if (brokenAt !== undefined) throw damaged(path, brokenAt);
      else visit(batch);
    }
    return brokenAt;
  } finally {
    await file.close();
  }
}

/** Lines without their newlines, empty ones left out; undefined for one that has no end or is too long. */
async function* linesOf(
  file: FileHandle,
): AsyncGenerator<{ line: Uint8Array | undefined; offset: number }> {
  let rest = Buffer.alloc(0);
  let overlong = false;
  let offset = 0;
  for (;;) {
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    const { bytesRead } = await file.read(chunk, 0, chunk.length, null);
    if (bytesRead === 0) break;
    rest = Buffer.concat([rest, chunk.subarray(0, bytesRead)]);
    for (let end = rest.indexOf(NEWLINE); end >= 0; end = rest.indexOf(NEWLINE)) {
      if (end > 0) yield { line: overlong ? undefined : rest.subarray(0, end), offset };
      offset += end + 1;
      rest = rest.subarray(end + 1);
      overlong = false;
    }
    if (rest.length <= MAX_LINE_BYTES) continue;
    if (!overlong) yield { line: undefined, offset };
    overlong = true;
    offset += rest.length;
    rest = Buffer.alloc(0);
  }
  if (rest.length > 0) yield { line: undefined, offset };
}
