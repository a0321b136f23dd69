import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';

/**
 * Where a path leads, without symbolic links as far as it exists: two names of one place are equal.
 *
 * @param path  Relative ones are relative to the process's directory.
 */
export function resolvePath(path: string): string {
  const missing: string[] = [];
  for (let here = resolve(path); ; here = dirname(here)) {
    try {
      return join(realpathSync(here), ...missing);
    } catch {
      // The root always exists, but a loop of links ends nowhere.
      if (here === dirname(here)) return resolve(path);
      missing.unshift(basename(here));
    }
  }
}
