import { randomBytes } from 'node:crypto';
import { type FileHandle, open, readdir, rename, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Deps } from '../../base/deps';
import { syncDirectory } from '../../base/durable-files';
import { AgentError, systemCode } from '../../base/errors';
import { Batches } from './batches';
import { formatCheckedLine } from './checked-line';
import { probeWrite } from './probe-write';
import { readSegment, type SegmentEnd } from './segment-file';
import {
  type IssuedEntry,
  type IssuedQuery,
  type IssuedReading,
  matches,
  neededUntilAt,
} from './store';
import { storeError } from './store-error';

const SEGMENT = /^[0-9a-f]{32}\.log$/;
/** Entries that share one fsync at most. */
const MAX_BATCH = 512;
/** A segment of ours ends at this size or age, so that what expires together can go together. */
const MAX_SEGMENT_BYTES = 4 * 1024 * 1024;
const MAX_SEGMENT_MS = 3_600_000;
/** Segments that nobody wrote to for so long are put together. A writer that is wrongly taken for gone notices, see `#write`. */
const SETTLED_MS = 2 * MAX_SEGMENT_MS;
const MAX_SEGMENTS = 16;
/** A line that is still unfinished after this long has lost its writer; and where it has not, that writer notices too. */
const WRITE_MS = 200;
/** Between the listing of the directory and the reading of a segment it may have been put together with others. */
const MAX_ROUNDS = 50;

interface Segment {
  readonly path: string;
  readonly file: FileHandle;
  readonly inode: bigint;
  readonly startedAt: number;
  size: number;
}

/**
 * The register of certificates as append-only files in one directory, for any number of processes without a lock.
 *
 * Each process appends to a segment of its own, so no two writers meet. What is waiting is written as one line with one check sum and one
 * fsync. Whoever tidies up first takes a segment by renaming it and then reads it; a writer looks after each fsync, before anybody is told,
 * whether its segment still has its name, and otherwise writes the batch again elsewhere. So a batch was either complete before the renaming
 * and is read, or is written twice; reading it twice does no harm.
 */
export class IssuedLog {
  readonly #batches = new Batches<IssuedEntry>(MAX_BATCH, (batch) => this.#write(batch));
  #segment: Segment | undefined;

  constructor(
    readonly dir: string,
    private readonly deps: Deps,
  ) {}

  async append(entry: IssuedEntry): Promise<void> {
    await this.#batches.add(entry).catch((caught) => {
      throw storeError(`write to ${this.dir}`, caught);
    });
  }

  /** Writes as much as a new segment with an entry takes, and takes it away again. */
  async probe(): Promise<void> {
    await probeWrite(this.dir);
  }

  async find(query: IssuedQuery, now: number): Promise<readonly IssuedEntry[]> {
    return (await this.findSince(query, now)).entries;
  }

  /** As `find`, but only what came since an earlier reading where `since` is of one and its segments are still there. */
  async findSince(
    query: IssuedQuery,
    now: number,
    since: IssuedReading['end'] = new Map(),
  ): Promise<IssuedReading> {
    const found = new Map<string, IssuedEntry>();
    const read = await this.#readAll((batch) => {
      for (const entry of batch) if (matches(entry, query, now)) found.set(entry.serial, entry);
    }, since);
    const end = new Map(read.map(({ path, readTo }) => [path, readTo]));
    // The entries of a segment that went are in another one by now, among some that were read before.
    if ([...since.keys()].some((path) => !end.has(path))) return this.findSince(query, now);
    return { entries: [...found.values()], isWhole: since.size === 0, end };
  }

  /** Looks through everything once and mends what killed writers left behind. @throws AgentError ERR_CA_STATE: damaged. */
  async check(now: number): Promise<void> {
    const torn = (await this.#readAll(() => undefined)).filter(
      ({ tornAt }) => tornAt !== undefined,
    );
    if (torn.length === 0) return;
    // A living writer may be in the middle of a line.
    await this.deps.clock.sleepUntil(this.deps.clock.now() + WRITE_MS);
    for (const { path, tornAt } of torn) {
      const again = await readSegment(path, () => undefined).catch(ignoreMissing);
      if (again?.tornAt !== tornAt) continue;
      this.deps.log.warn('truncated last register entry dropped', {
        path,
        offset: tornAt,
      });
      await this.#putTogether([path], now);
    }
  }

  /** Puts old segments together without what has expired. */
  async sweep(now: number): Promise<void> {
    const old: string[] = [];
    let [valid, expired] = [0, 0];
    for (const path of await this.#paths()) {
      const found = await stat(path).catch(() => undefined);
      if (!found || path === this.#segment?.path || now - found.mtimeMs < SETTLED_MS) continue;
      old.push(path);
      await readSegment(path, (batch) => {
        for (const entry of batch) {
          if (neededUntilAt(entry) > now) valid++;
          else expired++;
        }
      }).catch(ignoreMissing);
    }
    if (old.length > MAX_SEGMENTS || expired > valid) await this.#putTogether(old, now);
  }

  async close(): Promise<void> {
    await this.#batches.settled();
    await this.#leaveSegment();
  }

  async #write(batch: readonly IssuedEntry[]): Promise<void> {
    const frame = frameOf(batch);
    for (let round = 0; round < MAX_ROUNDS; round += 1) {
      const segment = await this.#openSegment();
      try {
        await segment.file.writeFile(frame);
        await segment.file.sync();
      } catch (caught) {
        await this.#giveUpSegment(segment);
        throw caught;
      }
      segment.size += frame.length;
      if ((await inodeOf(segment.path)) === segment.inode) return;
      await this.#leaveSegment();
    }
    throw new AgentError(
      'ERR_CA_STATE',
      `write to ${this.dir}: its files are moved away as fast as they are created`,
      { retry: 'soon' },
    );
  }

  async #openSegment(): Promise<Segment> {
    const now = this.deps.clock.now();
    const current = this.#segment;
    if (current && current.size < MAX_SEGMENT_BYTES && now - current.startedAt < MAX_SEGMENT_MS)
      return current;
    await this.#leaveSegment();
    const path = join(this.dir, newName());
    const file = await open(path, 'ax', 0o600);
    try {
      await file.chmod(0o600);
      const { ino } = await file.stat({ bigint: true });
      await syncDirectory(this.dir);
      this.#segment = { path, file, inode: ino, startedAt: now, size: 0 };
      return this.#segment;
    } catch (caught) {
      await file.close();
      await unlink(path).catch(() => undefined);
      throw caught;
    }
  }

  /** After a failed write: what was half written goes, where that is possible, and nothing is ever written behind it. */
  async #giveUpSegment(segment: Segment): Promise<void> {
    await segment.file.truncate(segment.size).catch(() => undefined);
    await this.#leaveSegment().catch(() => undefined);
    if (segment.size === 0) await unlink(segment.path).catch(() => undefined);
  }

  async #leaveSegment(): Promise<void> {
    const segment = this.#segment;
    this.#segment = undefined;
    await segment?.file.close();
  }

  /** Reads every segment, from the start again where one went away meanwhile: then `visit` sees entries more than once. */
  async #readAll(
    visit: (batch: readonly IssuedEntry[]) => void,
    since: IssuedReading['end'] = new Map(),
  ): Promise<(SegmentEnd & { readonly path: string })[]> {
    for (let round = 0; round < MAX_ROUNDS; round += 1) {
      try {
        const read: (SegmentEnd & { readonly path: string })[] = [];
        for (const path of await this.#paths())
          read.push({ path, ...(await readSegment(path, visit, since.get(path))) });
        return read;
      } catch (caught) {
        ignoreMissing(caught);
      }
    }
    throw new AgentError(
      'ERR_CA_STATE',
      `read ${this.dir}: its files change faster than they can be read`,
      { retry: 'soon' },
    );
  }

  async #putTogether(paths: readonly string[], now: number): Promise<void> {
    const taken: string[] = [];
    for (const path of paths) {
      const ours = join(this.dir, newName());
      if (await rename(path, ours).then(() => true, ignoreMissing)) taken.push(ours);
    }
    const valid = new Map<string, IssuedEntry>();
    for (const path of taken) {
      await readSegment(path, (batch) => {
        for (const entry of batch) if (neededUntilAt(entry) > now) valid.set(entry.serial, entry);
      }).catch(ignoreMissing);
    }
    if (valid.size > 0) await this.#writeSegment([...valid.values()]);
    for (const path of taken) await unlink(path).catch(ignoreMissing);
    if (taken.length > 0) await syncDirectory(this.dir);
  }

  async #writeSegment(entries: readonly IssuedEntry[]): Promise<void> {
    const temporary = join(this.dir, `.new-${randomBytes(8).toString('hex')}`);
    const file = await open(temporary, 'wx', 0o600);
    try {
      await file.chmod(0o600);
      for (let from = 0; from < entries.length; from += MAX_BATCH)
        await file.writeFile(frameOf(entries.slice(from, from + MAX_BATCH)));
      await file.sync();
      await rename(temporary, join(this.dir, newName()));
    } catch (caught) {
      await unlink(temporary).catch(() => undefined);
      throw caught;
    } finally {
      await file.close();
    }
    await syncDirectory(this.dir);
  }

  /** Listed until two lists agree: a name that changes while a directory is read may be seen under neither name. */
  async #paths(): Promise<string[]> {
    let names = await this.#names();
    for (;;) {
      const again = await this.#names();
      if (again.join() === names.join()) return names.map((name) => join(this.dir, name));
      names = again;
    }
  }

  async #names(): Promise<string[]> {
    return (await readdir(this.dir)).filter((name) => SEGMENT.test(name)).sort();
  }
}

/** A newline at both ends, so that one that is damaged does not make a single line of two. */
function frameOf(batch: readonly IssuedEntry[]): Buffer {
  return Buffer.concat([Buffer.from('\n'), formatCheckedLine(batch)]);
}

function newName(): string {
  return `${randomBytes(16).toString('hex')}.log`;
}

async function inodeOf(path: string): Promise<bigint | undefined> {
  return stat(path, { bigint: true }).then(({ ino }) => ino, ignoreMissing);
}

function ignoreMissing(caught: unknown): undefined {
  if (systemCode(caught) !== 'ENOENT') throw caught;
}
