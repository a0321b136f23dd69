import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from '@jest/globals';

const made: string[] = [];

// After the file, not the test: what a test started may write until its own afterEach has stopped it.
afterAll(() => {
  for (const dir of made.splice(0)) rmSync(dir, { recursive: true, force: true });
});

/** A new empty directory (0700) that is removed after the test file. */
export function tempDir(): string {
  const dir = mkdtempSync(join(tmpdir(), 'keyturn-test-'));
  made.push(dir);
  return dir;
}
