import type { Stats } from 'node:fs';
import { lstat, realpath, stat } from 'node:fs/promises';
import { join, resolve, sep } from 'node:path';
import { directoryNames } from '../base/directory-names';
import { AgentError, errorText, invalid, systemCode } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import { MAX_BYTES, MAX_FILE_BYTES, type PolicyFile } from '../policy/read-policies';
import { readInput } from './input';
import type { Terminal } from './terminal';

/** Directories within each other, and files in all of them. */
const MAX_DEPTH = 20;
const MAX_FILES = 10_000;
const MAX_LOOKS = 10;
const POLICY_FILE = /\.(ya?ml|json)$/i;

/**
 * Reads policies from directories, their sub-directories and files; `-` is standard input. Of a directory
 * the files whose names end in .yaml, .yml or .json, in the order of their paths; what begins with a dot
 * is passed over. Links are followed within it, as a mounted ConfigMap has them, and it is read anew where
 * it changes meanwhile, so that files of two versions are never mixed.
 *
 * @throws AgentError ERR_POLICY for a link that leads out, ERR_INPUT for what cannot be read.
 */
export async function readPolicyFiles(
  paths: readonly string[],
  terminal: Terminal,
): Promise<PolicyFile[]> {
  const files: PolicyFile[] = [];
  for (const path of paths) {
    if (path === '-')
      files.push({ name: '-', bytes: await readInput(path, terminal, MAX_FILE_BYTES) });
    else files.push(...(await readPath(resolve(terminal.cwd, path), path)));
  }
  return files;
}

async function readPath(path: string, shown: string): Promise<PolicyFile[]> {
  const entry = await statOf(path, shown);
  if (!entry.isDirectory()) return [{ name: shown, bytes: await read(path, shown) }];
  let found: PolicyFile[] | AgentError = [];
  for (let look = 0; look < MAX_LOOKS; look += 1) {
    found = await readOnce(path, shown);
    if (Array.isArray(found)) return found;
  }
  throw found;
}

/** @returns an error where something changed meanwhile, and another look may help. */
async function readOnce(path: string, shown: string): Promise<PolicyFile[] | AgentError> {
  try {
    const root = await realpath(path);
    const before = await new Walk(root, shown).all(root, '');
    if (before.reduce((sum, { size }) => sum + size, 0) > MAX_BYTES)
      throw invalid('ERR_POLICY', shown, `must not hold more than ${MAX_BYTES >> 20} MiB`);
    const files: PolicyFile[] = [];
    for (const { name, place } of before) {
      const file = join(shown, name);
      files.push({ name: file, bytes: await read(place, file) });
    }
    const after = await new Walk(root, shown).all(root, '');
    if (printOf(before) === printOf(after)) return files;
    return invalid('ERR_INPUT', shown, 'keeps changing while it is read', {
      retry: 'soon',
      hint: 'write files elsewhere and move them here once they are whole',
    });
  } catch (caught) {
    const error = AgentError.from(caught, 'ERR_INPUT');
    // What is gone since its name was read may have been exchanged.
    if (systemCode(error.cause) === 'ENOENT') return error;
    throw error;
  }
}

interface Found {
  /** Below the directory. */
  readonly name: string;
  /** Links resolved. */
  readonly place: string;
  readonly size: number;
  /** Changes with what the file holds. */
  readonly print: string;
}

const printOf = (files: readonly Found[]) =>
  files.map(({ name, place, print }) => `${name}\0${place}\0${print}`).join('\0');

/** One look at the names in a directory and below it. */
class Walk {
  #count = 0;

  constructor(
    private readonly root: string,
    private readonly shown: string,
  ) {}

  async all(dir: string, below: string, depth = 0): Promise<Found[]> {
    if (depth > MAX_DEPTH)
      throw this.#refuse(below, `must not be more than ${MAX_DEPTH} directories deep`);
    const found: Found[] = [];
    const names = (await directoryNames(dir)).filter((each) => !each.startsWith('.'));
    for (const each of names.sort()) {
      const name = join(below, each);
      const place = await this.#place(join(dir, each), name);
      if (place === undefined) continue;
      const entry = await stat(place, { bigint: true });
      if (entry.isDirectory()) found.push(...(await this.all(place, name, depth + 1)));
      else if (POLICY_FILE.test(each)) {
        this.#count += 1;
        if (this.#count > MAX_FILES)
          throw this.#refuse('', `must not have more than ${MAX_FILES} files`);
        const print = `${entry.ino}:${entry.size}:${entry.mtimeNs}`;
        found.push({ name, place, size: Number(entry.size), print });
      }
    }
    return found;
  }

  /** Where a name leads; undefined for a link out or to nothing that cannot hold policies. */
  async #place(path: string, name: string): Promise<string | undefined> {
    if (!(await lstat(path)).isSymbolicLink()) return path;
    const target = await realpath(path).catch((cause) => {
      if (!POLICY_FILE.test(name)) return undefined;
      throw new AgentError('ERR_INPUT', `${join(this.shown, name)}: a link to nothing`, { cause });
    });
    if (target === undefined) return undefined;
    const isWithin = target === this.root || target.startsWith(this.root + sep);
    if (!isWithin && !POLICY_FILE.test(name) && !(await stat(target)).isDirectory())
      return undefined;
    if (!isWithin) throw this.#refuse(name, `leads out of ${this.shown}, to ${target}`);
    // It would be read without end.
    if (path.startsWith(target + sep)) throw this.#refuse(name, 'is a link to what holds it');
    return target;
  }

  #refuse(name: string, rule: string): AgentError {
    return invalid('ERR_POLICY', name === '' ? this.shown : join(this.shown, name), rule);
  }
}

async function statOf(path: string, shown: string): Promise<Stats> {
  try {
    return await stat(path);
  } catch (cause) {
    const what =
      systemCode(cause) === 'ENOENT' ? 'there is no such file or directory' : errorText(cause);
    throw new AgentError('ERR_INPUT', `read ${shown}: ${what}`, {
      cause,
      hint: 'give a directory of policies, a file, or - for standard input',
    });
  }
}

/** @throws AgentError ERR_INPUT, also for what is no regular file. */
function read(path: string, shown: string): Promise<Uint8Array> {
  return readSmallFile(path, { field: shown, code: 'ERR_INPUT', maxBytes: MAX_FILE_BYTES });
}
