import {
  editYaml,
  parseYaml,
  type YamlLimits,
  type YamlMapping,
  type YamlText,
} from '../base/yaml';
import { quote } from './value-types';

/** Far more than any settings need; reading stops there. */
export const MAX_FILE_BYTES = 256 * 1024;
/** A file that sets everything has a few hundred. */
const MAX_TOKENS = 20_000;

/** What a file says about one key: the text of its value as written, lists joined by commas. */
export interface FileEntry {
  readonly key: string;
  readonly text: string;
}

/**
 * Reads a settings file: YAML with one mapping of names to scalars or lists of scalars. Values are taken as they are written, so that
 * `0600` stays a mode and `1h` a duration. Anchors, aliases, tags, merges, duplicate keys and several documents are refused.
 *
 * @param bytes  The file, at most 256 KiB.
 * @param name   How errors call it, e.g. `file keyturn.yaml`.
 * @throws       AgentError ERR_CONFIG naming the file and, where one is at fault, the line.
 */
export async function parseSettingsFile(bytes: Uint8Array, name: string): Promise<FileEntry[]> {
  const text = await parseYaml(bytes, limitsOf(name));
  const { isMap, isScalar } = text.yaml;
  const { contents } = text.document;
  if (contents === null || (isScalar(contents) && contents.source === '')) return [];
  if (!isMap(contents))
    throw text.refuse(offsetOf(contents), 'must be a mapping of settings to values');
  return readMapping(contents, text);
}

/**
 * The entries of one mapping, as `parseSettingsFile` reads them.
 *
 * @throws AgentError ERR_CONFIG naming file and line.
 */
export function readMapping(mapping: YamlMapping, { yaml, refuse }: YamlText): FileEntry[] {
  const { isAlias, isScalar, isSeq } = yaml;
  const scalarText = (node: unknown, key: string): string => {
    const offset = offsetOf(node);
    if (isAlias(node)) throw refuse(offset, `${key}: aliases are not allowed`);
    if (!isScalar(node)) throw refuse(offset, `${key}: must be a plain value`);
    if (node.anchor !== undefined || node.tag !== undefined)
      throw refuse(offset, `${key}: anchors and tags are not allowed`);
    const plain = node.type === 'PLAIN' ? (node.source ?? '') : String(node.value ?? '');
    if (plain === '' || (node.type === 'PLAIN' && node.value === null))
      throw refuse(offset, `${key}: has no value`);
    return plain;
  };

  const entries = new Map<string, FileEntry>();
  for (const pair of mapping.items) {
    const key = isScalar(pair.key) ? String(pair.key.value) : '';
    if (key === '') throw refuse(offsetOf(pair.key), 'keys must be names of settings');
    const shown = key.length > 60 ? quote(key) : key;
    if (entries.has(key)) throw refuse(offsetOf(pair.key), `${quote(key)} is given twice`);
    if (isSeq(pair.value)) {
      if (pair.value.anchor !== undefined || pair.value.tag !== undefined)
        throw refuse(offsetOf(pair.value), `${shown}: anchors and tags are not allowed`);
      if (pair.value.items.length === 0)
        throw refuse(offsetOf(pair.value), `${shown}: has no value`);
      entries.set(key, {
        key,
        text: pair.value.items.map((item) => scalarText(item, shown)).join(','),
      });
    } else {
      entries.set(key, { key, text: scalarText(pair.value, shown) });
    }
  }
  return [...entries.values()];
}

/**
 * A settings file with some settings set (a text) or taken out (undefined). Comments and order stay.
 *
 * @throws AgentError as `parseSettingsFile`.
 */
export async function editSettingsFile(
  bytes: Uint8Array,
  changes: Readonly<Record<string, string | undefined>>,
  name: string,
): Promise<Buffer> {
  // What is no mapping of settings has no place for one.
  await parseSettingsFile(bytes, name);
  return editYaml(bytes, changes, limitsOf(name));
}

function limitsOf(name: string): YamlLimits {
  return { name, code: 'ERR_CONFIG', maxBytes: MAX_FILE_BYTES, maxTokens: MAX_TOKENS };
}

/** Where a node stands in its text, for `refuse`. */
export function offsetOf(node: unknown): number | undefined {
  return (node as { range?: readonly number[] | null } | null)?.range?.[0];
}
