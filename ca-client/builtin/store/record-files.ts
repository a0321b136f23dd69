import { randomBytes } from 'node:crypto';
import { link, lstat, readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { syncDirectory, writeDurably } from '../../../agent/base/durable-files';
import { systemCode } from '../../../agent/base/errors';
import { readSmallFile } from '../../../agent/base/read-file';
import { formatCheckedLine, parseCheckedLine } from './checked-line';
import { damaged } from './store-error';

const TEMPORARY = '.new-';
/** What a writer that was killed has left; a living one needs milliseconds. */
const LITTER_MS = 60_000;
/** Files that are written side by side. */
const AT_ONCE = 16;

/**
 * A directory with one record a file. A name is made whole or not at all, and given to one maker only: the kernel's `link`
 * decides, between processes too, and there is no lock that a killed process could leave behind.
 */
export class RecordFiles<T> {
  /** A record never changes, so what was read once need not be read again. */
  readonly #known = new Map<string, T>();

  constructor(readonly dir: string) {}

  /** Adds what is not there yet; durable when it resolves. Returns the names that were added. */
  async add(records: ReadonlyMap<string, T>): Promise<string[]> {
    const added: string[] = [];
    const todo = [...records];
    for (let from = 0; from < todo.length; from += AT_ONCE) {
      const made = todo.slice(from, from + AT_ONCE).map(async ([name, record]) => ((await this.#addOne(name, record)) ? [name] : []));
      added.push(...(await allOf(made)).flat());
    }
    await syncDirectory(this.dir);
    return added;
  }

  /** Undefined where there is none. @throws AgentError ERR_CA_STATE: damaged. */
  async read(name: string): Promise<T | undefined> {
    const path = join(this.dir, name);
    const bytes = await readSmallFile(path, { field: path, code: 'ERR_CA_STATE' }).catch((caught: Error) => {
      if (systemCode(caught.cause) === 'ENOENT') return undefined;
      throw caught;
    });
    if (bytes === undefined) return undefined;
    const record = bytes.at(-1) === 0x0a ? parseCheckedLine(bytes.subarray(0, -1)) : undefined;
    if (record === undefined) throw damaged(path, 0);
    return record as T;
  }

  /** All records by name. */
  async readAll(): Promise<Map<string, T>> {
    const records = new Map<string, T>();
    for (const name of await this.#names()) {
      const record = this.#known.get(name) ?? (await this.read(name));
      if (record !== undefined) records.set(name, record);
    }
    this.#known.clear();
    for (const [name, record] of records) this.#known.set(name, record);
    return records;
  }

  /** Removes the records that are no longer wanted, and what killed writers left. */
  async sweep(isOver: (record: T) => boolean, now: number): Promise<void> {
    for (const [name, record] of await this.readAll()) if (isOver(record)) await remove(join(this.dir, name));
    for (const name of await readdir(this.dir)) {
      if (!name.startsWith(TEMPORARY)) continue;
      const found = await lstat(join(this.dir, name)).catch(() => undefined);
      if (found && now - found.mtimeMs > LITTER_MS) await remove(join(this.dir, name));
    }
  }

  async #addOne(name: string, record: T): Promise<boolean> {
    const temporary = join(this.dir, `${TEMPORARY}${randomBytes(8).toString('hex')}`);
    try {
      await writeDurably(temporary, formatCheckedLine(record), 0o600);
      await link(temporary, join(this.dir, name));
      return true;
    } catch (caught) {
      if (systemCode(caught) === 'EEXIST') return false;
      throw caught;
    } finally {
      await remove(temporary);
    }
  }

  async #names(): Promise<string[]> {
    return (await readdir(this.dir)).filter((name) => !name.startsWith('.'));
  }
}

/** As Promise.all, but nothing is under way any more when it rejects. */
async function allOf<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}

async function remove(path: string): Promise<void> {
  await unlink(path).catch((caught) => {
    if (systemCode(caught) !== 'ENOENT') throw caught;
  });
}
