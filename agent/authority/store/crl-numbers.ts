import { open, readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { syncDirectory } from '../../base/durable-files';
import { systemCode } from '../../base/errors';

/**
 * Gives numbers that only rise, to any number of processes: an empty file each, which one process can make. A number that nobody used, because
 * its process died, is a gap, which RFC 5280 section 5.2.3 allows.
 */
export async function nextNumber(dir: string): Promise<number> {
  for (;;) {
    const next = (await highest(dir)) + 1;
    if (!(await make(join(dir, String(next))))) continue;
    // Whoever was slow may have made one that others had long passed and removed.
    if ((await highest(dir)) > next) continue;
    await syncDirectory(dir);
    for (const number of await numbers(dir))
      if (number < next) await unlink(join(dir, String(number))).catch(() => undefined);
    return next;
  }
}

async function make(path: string): Promise<boolean> {
  try {
    await (await open(path, 'wx', 0o600)).close();
    return true;
  } catch (caught) {
    if (systemCode(caught) === 'EEXIST') return false;
    throw caught;
  }
}

async function highest(dir: string): Promise<number> {
  return Math.max(0, ...(await numbers(dir)));
}

async function numbers(dir: string): Promise<number[]> {
  return (await readdir(dir)).filter((name) => /^[1-9]\d{0,14}$/.test(name)).map(Number);
}
