import { createHash } from 'node:crypto';
import type { Dirent } from 'node:fs';
import { opendir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { AgentError, errorText, invalid, systemCode } from '../base/errors';
import { type ReadLimits, readSmallFile } from '../base/read-file';
import type { WorkloadEntry } from './config';
import {
  MAX_LIST_BYTES,
  MAX_WORKLOADS,
  parseWorkloadFile,
  parseWorkloadList,
  type UnreadableEntry,
} from './workload-list';
import { assertFileOursToWrite, assertOursToWrite } from './writers';

/** A list of workloads as it stands on the disk. */
export interface ListText {
  /** Every file that is part of it, in order; what is to be watched beside the place itself. */
  readonly files: readonly string[];
  /** Equal prints are equal texts and failures. */
  readonly print: string;
  /** What each file says. Reading it twice gives the same. */
  entries(): Promise<readonly (WorkloadEntry | UnreadableEntry)[]>;
  /**
   * The same, but a file of it that was another at an earlier look counts as unreadable: somebody may be in the middle of writing it.
   *
   * @throws AgentError ERR_CONFIG where all of the list is one such file.
   */
  holdBack(earlier: ListText): ListText;
}

/** Of a file of one workload; a thousand of them are read at once. */
const MAX_FILE_BYTES = 32 * 1024;
/** Names in a directory that are looked at, ours or not. */
const MAX_NAMES = 20_000;
/** Files that others may have open half-written, or that are hidden, are none of ours: `..data`, `.cart.yaml.swp`, `cart.yaml~`. */
const WORKLOAD_FILE = /^([^.].*)\.ya?ml$/;

/**
 * Reads the texts of a list: those of a directory's `*.yaml` and `*.yml`, in the order of their names, or of one file.
 *
 * @throws AgentError ERR_CONFIG where the place as a whole cannot be read or is for others to write, or a directory has more than 1,000.
 */
export async function readListText(place: string): Promise<ListText> {
  const isList = await isDirectory(place);
  assertOursToWrite(place, `workloads ${place}`);
  if (isList) return readDirectory(place);
  const bytes = await readSmallFile(place, {
    field: `file ${place}`,
    code: 'ERR_CONFIG',
    maxBytes: MAX_LIST_BYTES,
  });
  return {
    files: [place],
    print: hash([bytes]),
    entries: () => parseWorkloadList(bytes, place),
    holdBack: () => {
      throw keepsChanging(place);
    },
  };
}

async function isDirectory(place: string): Promise<boolean> {
  try {
    return (await stat(place)).isDirectory();
  } catch (cause) {
    const what =
      systemCode(cause) === 'ENOENT' ? 'there is no such file or directory' : errorText(cause);
    throw new AgentError('ERR_CONFIG', `workloads ${place}: ${what}`, {
      field: `workloads ${place}`,
      cause,
    });
  }
}

async function readDirectory(dir: string): Promise<ListText> {
  const names = (await namesIn(dir)).sort();
  const texts: (Buffer | AgentError)[] = [];
  for (const name of names) {
    const path = join(dir, name);
    const limits = { field: `file ${path}`, code: 'ERR_CONFIG', maxBytes: MAX_FILE_BYTES } as const;
    texts.push(
      await readOurs(path, limits).catch((caught) => AgentError.from(caught, 'ERR_CONFIG')),
    );
  }
  return new DirectoryText(new Map(names.map((name, index) => [join(dir, name), texts[index]!])));
}

async function readOurs(path: string, limits: ReadLimits): Promise<Buffer> {
  const bytes = await readSmallFile(path, limits);
  assertFileOursToWrite(path, limits.field);
  return bytes;
}

/** What the files of a directory say, or why they cannot be read. */
class DirectoryText implements ListText {
  readonly files: readonly string[];
  readonly print: string;
  readonly #prints: ReadonlyMap<string, string>;

  constructor(private readonly texts: ReadonlyMap<string, Buffer | AgentError>) {
    this.files = [...texts.keys()];
    this.#prints = new Map(
      [...texts].map(([path, text]) => [
        path,
        hash([text instanceof AgentError ? Buffer.from(text.message) : text]),
      ]),
    );
    this.print = hash([...this.#prints].flat().map((each) => Buffer.from(each)));
  }

  entries(): Promise<(WorkloadEntry | UnreadableEntry)[]> {
    return Promise.all(
      [...this.texts].map(([from, text]) => {
        if (text instanceof AgentError) return { name: undefined, from, error: text };
        return parseWorkloadFile(text, from, WORKLOAD_FILE.exec(basename(from))![1]!);
      }),
    );
  }

  holdBack(earlier: ListText): ListText {
    const before = earlier instanceof DirectoryText ? earlier.#prints : new Map<string, string>();
    const held = [...this.texts].map(
      ([path, text]) =>
        [path, before.get(path) === this.#prints.get(path) ? text : keepsChanging(path)] as const,
    );
    return new DirectoryText(new Map(held));
  }
}

function keepsChanging(path: string): AgentError {
  return invalid('ERR_CONFIG', `file ${path}`, 'keeps changing', {
    hint: 'write it elsewhere and move it here once it is whole',
  });
}

async function namesIn(dir: string): Promise<string[]> {
  const field = `workloads ${dir}`;
  const names: string[] = [];
  let looked = 0;
  try {
    for await (const entry of (await opendir(dir)) as AsyncIterable<Dirent>) {
      looked += 1;
      if (looked > MAX_NAMES)
        throw invalid('ERR_CONFIG', field, `must not have more than ${MAX_NAMES} entries`);
      if (WORKLOAD_FILE.test(entry.name)) names.push(entry.name);
    }
  } catch (caught) {
    throw caught instanceof AgentError
      ? caught
      : new AgentError('ERR_CONFIG', `${field}: ${errorText(caught)}`, { field, cause: caught });
  }
  if (names.length <= MAX_WORKLOADS) return names;
  throw invalid(
    'ERR_CONFIG',
    field,
    `must not have more than ${MAX_WORKLOADS} workloads, it has ${names.length}`,
  );
}

function hash(parts: readonly Uint8Array[]): string {
  const all = createHash('sha256');
  for (const part of parts) all.update(`${part.length}:`).update(part);
  return all.digest('hex');
}
