import { AgentError, invalid } from '../base/errors';
import { parseYaml, type YamlText } from '../base/yaml';
import type { WorkloadEntry } from './config';
import { type FileEntry, offsetOf, parseSettingsFile, readMapping } from './settings-file';
import { quote } from './value-types';

/** More than any machine runs; of a list that is longer nothing is taken. */
export const MAX_WORKLOADS = 1_000;
/** Of a list of all of them: reading takes some 0.3 s, in which nothing else happens. */
export const MAX_LIST_BYTES = 512 * 1024;
const MAX_LIST_TOKENS = 150_000;

/** An entry that cannot be used. Without a name nobody knows which workload it is about. */
export interface UnreadableEntry {
  readonly name: string | undefined;
  readonly from: string;
  readonly error: AgentError;
}

/**
 * Reads a file of one workload: a mapping of settings to values, and `name`, which is otherwise the file's own without its ending.
 *
 * @param from  The file's path; `fallback` is the name that it gives.
 */
export async function parseWorkloadFile(
  bytes: Uint8Array,
  from: string,
  fallback: string,
): Promise<WorkloadEntry | UnreadableEntry> {
  const origin = `file ${from}`;
  try {
    return toEntry(await parseSettingsFile(bytes, origin), from, origin, fallback);
  } catch (caught) {
    return { name: undefined, from, error: AgentError.from(caught, 'ERR_CONFIG') };
  }
}

/**
 * Reads a file of several workloads: a YAML list whose elements are mappings as in a file of one, each with a `name`. An element that is
 * wrong does not touch the others.
 *
 * @throws AgentError ERR_CONFIG where the file as a whole is no such list; also where it is empty, since `[]` says that none are wanted.
 */
export async function parseWorkloadList(
  bytes: Uint8Array,
  from: string,
): Promise<(WorkloadEntry | UnreadableEntry)[]> {
  const file = `file ${from}`;
  const limits = {
    name: file,
    code: 'ERR_CONFIG',
    maxBytes: MAX_LIST_BYTES,
    maxTokens: MAX_LIST_TOKENS,
  } as const;
  const text = await parseYaml(bytes, limits);
  const { contents } = text.document;
  if (!text.yaml.isSeq(contents))
    throw text.refuse(offsetOf(contents), 'must be a list of workloads, [] for none');
  const { length } = contents.items;
  if (length > MAX_WORKLOADS)
    throw invalid(
      'ERR_CONFIG',
      file,
      `must not have more than ${MAX_WORKLOADS} workloads, it has ${length}`,
    );
  return contents.items.map((item, index) =>
    readItem(item, { text, from, place: `${file} element ${index + 1}` }),
  );
}

function readItem(
  item: unknown,
  { text, from, place }: { text: YamlText; from: string; place: string },
): WorkloadEntry | UnreadableEntry {
  const { isMap, isScalar } = text.yaml;
  let name: string | undefined;
  try {
    if (!isMap(item)) throw invalid('ERR_CONFIG', place, 'must be a mapping of settings to values');
    const said = item.get('name', true);
    const plain = isScalar(said) ? String(said.source ?? said.value) : undefined;
    name = plain !== undefined && isWorkloadName(plain) ? plain : undefined;
    const origin = name === undefined ? place : `file ${from}: ${name}`;
    return toEntry(readMapping(item, text), from, origin, undefined);
  } catch (caught) {
    return { name, from, error: AgentError.from(caught, 'ERR_CONFIG') };
  }
}

function toEntry(
  entries: readonly FileEntry[],
  from: string,
  origin: string,
  fallback: string | undefined,
): WorkloadEntry {
  const name = entries.find(({ key }) => key === 'name')?.text ?? fallback;
  const field = `${origin}: name`;
  if (name === undefined) throw invalid('ERR_CONFIG', field, 'is required');
  if (!isWorkloadName(name)) {
    throw invalid(
      'ERR_CONFIG',
      field,
      `${quote(name)} must be at most 63 lower-case letters, digits, "-", "_" and ".", no sign at either end`,
      {
        hint: 'it becomes part of paths; say it with name: in the file where the file has another name',
      },
    );
  }
  return { name, from, origin, settings: entries.filter(({ key }) => key !== 'name') };
}

function isWorkloadName(text: string): boolean {
  return /^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$/.test(text);
}
