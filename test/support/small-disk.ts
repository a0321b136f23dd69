import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { systemCode } from '../../agent/base/errors';
import { tempDir } from './temp-dir';

/** A file system of its own with little room. */
export interface SmallDisk {
  /** Where it is mounted. */
  readonly dir: string;
  /** Leaves no room at all, until `free`. */
  fill(): void;
  free(): void;
  close(): void;
}

/** Mounts a tmpfs. @throws Error where that is not allowed. */
export function mountSmallDisk(kibibytes: number, dir = tempDir()): SmallDisk {
  mkdirSync(dir, { recursive: true });
  const { status, stderr } = spawnSync(
    'mount',
    ['-t', 'tmpfs', '-o', `size=${kibibytes}k,mode=0700`, 'tmpfs', dir],
    { encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(`mount: ${stderr}`);
  const path = join(dir, 'fill');
  return {
    dir,
    fill: () => {
      const file = openSync(path, 'w');
      try {
        for (;;) writeSync(file, Buffer.alloc(4_096));
      } catch (caught) {
        if (systemCode(caught) !== 'ENOSPC') throw caught;
      } finally {
        closeSync(file);
      }
    },
    free: () => rmSync(path),
    // Whoever still has a file of it open keeps it alive, but not its name.
    close: () => void spawnSync('umount', ['-l', dir]),
  };
}

/** Whether tests may mount. */
export function mayMount(): boolean {
  try {
    mountSmallDisk(64).close();
    return true;
  } catch {
    return false;
  }
}
