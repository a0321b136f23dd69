import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const made: string[] = [];

function removeAll(): void {
  for (const dir of made.splice(0)) rmSync(dir, { recursive: true, force: true });
}

// After the file, not the test: what a test started may write until its own afterEach has stopped it.
const { afterAll } = globalThis as { readonly afterAll?: (work: () => void) => void };
if (afterAll) afterAll(removeAll);
else process.once('exit', removeAll);

/**
 * A new empty directory (0700) that is removed after the test file, or with the process where that runs no tests.
 *
 * @param below  Default: the system's temporary directory.
 */
export function tempDir(below = tmpdir()): string {
  const dir = mkdtempSync(join(below, 'keyturn-test-'));
  made.push(dir);
  return dir;
}
