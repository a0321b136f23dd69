import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The text under each name as a reader finds it now, or undefined where there is nothing. */
export function readEach(dir: string, names: readonly string[]): (string | undefined)[] {
  return names.map((name) => {
    try {
      return readFileSync(join(dir, name), 'utf8');
    } catch (caught) {
      if ((caught as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw caught;
    }
  });
}
