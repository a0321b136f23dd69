import { randomBytes } from 'node:crypto';
import { open, unlink } from 'node:fs/promises';
import { join } from 'node:path';

/** As much as file systems give at once to a file that grows. */
const PROBE_BYTES = 16 * 1024;

/** Writes a file of some blocks that has no name: fails where an append to another file of that directory may fail. @throws The system's error. */
export async function probeWrite(dir: string): Promise<void> {
  const path = join(dir, `.new-probe-${randomBytes(8).toString('hex')}`);
  const file = await open(path, 'wx', 0o600);
  try {
    // Before it has any size: a process that is killed here leaves nothing.
    await unlink(path);
    await file.writeFile(Buffer.alloc(PROBE_BYTES));
    await file.sync();
  } finally {
    await file.close().catch(() => undefined);
  }
}
