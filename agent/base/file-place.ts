import { lstat, readlink, stat } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';

/** As many symbolic links as Linux follows in one path (path_resolution(7)). */
const MAX_LINKS = 40;

/** What a path leads to at one moment. */
export interface FilePlace {
  /** Every link on the way, and what lies at the end by device, inode, size and times: two equal prints mean that nothing changed. */
  readonly print: string;
  /** The directories, without symbolic links, in which a change would lead the path elsewhere. */
  readonly dirs: readonly string[];
}

/** Walks an absolute path as the kernel does, and notes each directory whose entry decided the way. What is missing is no error. */
export async function followPath(path: string): Promise<FilePlace> {
  const dirs = new Set<string>();
  const print: string[] = [];
  let todo = path.split('/').filter(Boolean);
  let here = '/';
  for (let links = 0; todo.length > 0; ) {
    const [name, ...rest] = todo as [string, ...string[]];
    const next = join(here, name);
    const entry = await lstat(next).catch(() => undefined);
    if (entry?.isSymbolicLink() && links < MAX_LINKS) {
      links += 1;
      dirs.add(here);
      const target = await readlink(next).catch(() => '');
      print.push(`${next} -> ${target}`);
      todo = [
        ...(isAbsolute(target) ? target : join(here, target)).split('/').filter(Boolean),
        ...rest,
      ];
      here = '/';
      continue;
    }
    // The last directory that exists is where the missing name will appear.
    if (!entry || rest.length === 0) dirs.add(here);
    if (entry?.isDirectory() && rest.length === 0) dirs.add(next);
    if (!entry) return { dirs: [...dirs], print: [...print, 'missing'].join('\n') };
    here = next;
    todo = rest;
  }
  const end = await stat(here, { bigint: true }).catch(() => undefined);
  print.push(end ? `${end.dev}:${end.ino}:${end.size}:${end.mtimeNs}:${end.ctimeNs}` : 'missing');
  return { dirs: [...dirs], print: print.join('\n') };
}
