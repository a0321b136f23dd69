import { type FileHandle, open } from 'node:fs/promises';
import { parseCheckedLine } from './checked-line';
import type { IssuedEntry } from './store';
import { damaged } from './store-error';

const CHUNK_BYTES = 256 * 1024;
/** Far above a full batch; what has no newline for so long is no line of ours. */
const MAX_LINE_BYTES = 8 * 1024 * 1024;
const NEWLINE = 0x0a;

/** How far a segment could be read, in octets from its start. */
export interface SegmentEnd {
  /** Where the next reading goes on: behind the last whole batch. */
  readonly readTo: number;
  /** Where an unfinished batch begins; undefined where there is none. */
  readonly tornAt: number | undefined;
}

/**
 * Reads a segment of the register and calls `visit` with each batch, in order.
 *
 * A batch that is damaged and has no good one behind it is what a writer left that was killed or cut off from power while it wrote: nobody
 * was told that it was written, so it is passed over. Before a good one it is damage, because a writer goes on only after the batch before
 * is on disk.
 *
 * @param from  `readTo` of an earlier reading, to visit what was added since.
 * @throws      AgentError ERR_CA_STATE naming the file and the byte; system errors as they are.
 */
export async function readSegment(
  path: string,
  visit: (batch: readonly IssuedEntry[]) => void,
  from = 0,
): Promise<SegmentEnd> {
  const file = await open(path, 'r');
  try {
    let brokenAt: number | undefined;
    let readTo = from;
    for await (const { line, offset, end } of linesOf(file, from)) {
      const batch = line && (parseCheckedLine(line) as readonly IssuedEntry[] | undefined);
      if (batch === undefined) brokenAt ??= offset;
      else if (brokenAt !== undefined) throw damaged(path, brokenAt);
      else {
        visit(batch);
        readTo = end;
      }
    }
    return { readTo, tornAt: brokenAt };
  } finally {
    await file.close();
  }
}

/** Lines without their newlines, empty ones left out; undefined for one that has no end or is too long. */
async function* linesOf(
  file: FileHandle,
  from: number,
): AsyncGenerator<{ line: Uint8Array | undefined; offset: number; end: number }> {
  let rest = Buffer.alloc(0);
  let overlong = false;
  let offset = from;
  let position = from;
  for (;;) {
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    const { bytesRead } = await file.read(chunk, 0, chunk.length, position);
    if (bytesRead === 0) break;
    position += bytesRead;
    rest = Buffer.concat([rest, chunk.subarray(0, bytesRead)]);
    for (let end = rest.indexOf(NEWLINE); end >= 0; end = rest.indexOf(NEWLINE)) {
      const line = overlong ? undefined : rest.subarray(0, end);
      if (end > 0) yield { line, offset, end: offset + end + 1 };
      offset += end + 1;
      rest = rest.subarray(end + 1);
      overlong = false;
    }
    if (rest.length <= MAX_LINE_BYTES) continue;
    if (!overlong) yield { line: undefined, offset, end: offset + rest.length };
    overlong = true;
    offset += rest.length;
    rest = Buffer.alloc(0);
  }
  if (rest.length > 0) yield { line: undefined, offset, end: offset + rest.length };
}
