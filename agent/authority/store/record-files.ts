import { randomBytes } from 'node:crypto';
import { link, lstat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { directoryNames } from '../../base/directory-names';
import { syncDirectory, writeDurably } from '../../base/durable-files';
import { systemCode } from '../../base/errors';
import { readSmallFile } from '../../base/read-file';
import { eachOf, inTurns } from '../../base/steps';
import { Batches } from './batches';
import { formatCheckedLine, parseCheckedLine } from './checked-line';
import { damaged } from './store-error';

const TEMPORARY = '.new-';
/** What a writer that was killed has left; a living one needs milliseconds. */
const LITTER_MS = 60_000;
const PER_STEP = 2_000;
/** Files that are read or written side by side. */
const AT_ONCE = 16;

/**
 * A directory with one record a file. A name is made whole or not at all, and given to one maker only: the kernel's `link`
 * decides, between processes too, and there is no lock that a killed process could leave behind.
 */
export class RecordFiles<T> {
  /** A record never changes, so what was read once need not be read again. */
  #known: ReadonlyMap<string, T> = new Map();
  /** Calls that are under way at once share one fsync of the directory. */
  readonly #syncs = new Batches<null>(Number.POSITIVE_INFINITY, () => syncDirectory(this.dir));

  constructor(readonly dir: string) {}

  /** Adds what is not there yet; durable when it resolves. Returns the names that were added. */
  async add(records: ReadonlyMap<string, T>): Promise<string[]> {
    const added: string[] = [];
    const todo = [...records];
    for (let from = 0; from < todo.length; from += AT_ONCE) {
      const made = todo
        .slice(from, from + AT_ONCE)
        .map(async ([name, record]) => ((await this.#addOne(name, record)) ? [name] : []));
      added.push(...(await allOf(made)).flat());
    }
    await this.#syncs.add(null);
    return added;
  }

  /** Undefined where there is none. @throws AgentError ERR_CA_STATE: damaged. */
  async read(name: string): Promise<T | undefined> {
    const path = join(this.dir, name);
    const bytes = await readSmallFile(path, { field: path, code: 'ERR_CA_STATE' }).catch(
      (caught: Error) => {
        if (systemCode(caught.cause) === 'ENOENT') return undefined;
        throw caught;
      },
    );
    if (bytes === undefined) return undefined;
    const record = bytes.at(-1) === 0x0a ? parseCheckedLine(bytes.subarray(0, -1)) : undefined;
    if (record === undefined) throw damaged(path, 0);
    return record as T;
  }

  /** All records by name, which is the same map while there are the same. Lets others run in between. */
  async readAll(): Promise<ReadonlyMap<string, T>> {
    const names = await this.#names();
    const records = new Map<string, T>();
    const fresh: string[] = [];
    const look = eachOf(names, PER_STEP, (name) => {
      const known = this.#known.get(name);
      if (known === undefined) fresh.push(name);
      else records.set(name, known);
    });
    await inTurns(look);
    for (let from = 0; from < fresh.length; from += AT_ONCE) {
      const some = fresh.slice(from, from + AT_ONCE);
      const read = await allOf(some.map((name) => this.read(name)));
      for (const [index, record] of read.entries())
        if (record !== undefined) records.set(some[index]!, record);
    }
    if (fresh.length > 0 || names.length !== this.#known.size) this.#known = records;
    return this.#known;
  }

  /** Removes the records that are no longer wanted, and what killed writers left. */
  async sweep(isOver: (record: T) => boolean, now: number): Promise<void> {
    for (const [name, record] of await this.readAll())
      if (isOver(record)) await remove(join(this.dir, name));
    for (const name of await directoryNames(this.dir)) {
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
    return (await directoryNames(this.dir)).filter((name) => !name.startsWith('.'));
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
