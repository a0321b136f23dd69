import { invalid } from '../base/errors';
import { quote } from './value-types';

/** Far more than any settings need; reading stops there. */
export const MAX_FILE_BYTES = 256 * 1024;
/** Words and signs. A file that sets everything has a few hundred; each wrong one costs the parser an error object. */
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
  if (bytes.length > MAX_FILE_BYTES) throw invalid('ERR_CONFIG', name, 'must not be larger than 256 KiB');
  const text = decode(bytes, name);
  const { Lexer, parseDocument, isAlias, isMap, isScalar, isSeq } = await import('yaml');
  const refuse = (offset: number | undefined, rule: string) => invalid('ERR_CONFIG', `${name}${lineOf(text, offset)}`, rule);

  let tokens = 0;
  for (const _ of new Lexer().lex(text)) {
    tokens += 1;
    if (tokens > MAX_TOKENS) throw refuse(undefined, `must not have more than ${MAX_TOKENS} words and signs`);
  }
  // Pretty errors and the unique-key check take time square in the input; both are done here, in linear time.
  const document = parseDocument(text, { prettyErrors: false, uniqueKeys: false, schema: 'core', merge: false });
  const problem = document.errors[0] ?? document.warnings[0];
  if (problem) throw refuse(problem.pos[0], `is not YAML: ${firstLine(problem.message)}`);
  const { contents } = document;
  if (contents === null || (isScalar(contents) && contents.source === '')) return [];
  if (!isMap(contents)) throw refuse(offsetOf(contents), 'must be a mapping of settings to values');

  const scalarText = (node: unknown, key: string): string => {
    const offset = offsetOf(node);
    if (isAlias(node)) throw refuse(offset, `${key}: aliases are not allowed`);
    if (!isScalar(node)) throw refuse(offset, `${key}: must be a plain value`);
    if (node.anchor !== undefined || node.tag !== undefined) throw refuse(offset, `${key}: anchors and tags are not allowed`);
    const plain = node.type === 'PLAIN' ? (node.source ?? '') : String(node.value ?? '');
    if (plain === '' || (node.type === 'PLAIN' && node.value === null)) throw refuse(offset, `${key}: has no value`);
    return plain;
  };

  const entries = new Map<string, FileEntry>();
  for (const pair of contents.items) {
    const key = isScalar(pair.key) ? String(pair.key.value) : '';
    if (key === '') throw refuse(offsetOf(pair.key), 'keys must be names of settings');
    if (entries.has(key)) throw refuse(offsetOf(pair.key), `${quote(key)} is given twice`);
    const shown = key.length > 60 ? quote(key) : key;
    if (isSeq(pair.value)) {
      if (pair.value.anchor !== undefined || pair.value.tag !== undefined)
        throw refuse(offsetOf(pair.value), `${shown}: anchors and tags are not allowed`);
      entries.set(key, { key, text: pair.value.items.map((item) => scalarText(item, shown)).join(',') });
    } else {
      entries.set(key, { key, text: scalarText(pair.value, shown) });
    }
  }
  return [...entries.values()];
}

function decode(bytes: Uint8Array, name: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (caught) {
    throw invalid('ERR_CONFIG', name, 'must be UTF-8', { cause: caught });
  }
}

function offsetOf(node: unknown): number | undefined {
  return (node as { range?: readonly number[] | null } | null)?.range?.[0];
}

/** ` line 3`, or nothing where the place is not known. */
function lineOf(text: string, offset: number | undefined): string {
  if (offset === undefined) return '';
  let line = 1;
  for (let at = text.indexOf('\n'); at >= 0 && at < offset; at = text.indexOf('\n', at + 1)) line += 1;
  return ` line ${line}`;
}

function firstLine(message: string): string {
  const line = message.split('\n', 1)[0]!;
  return line.charAt(0).toLowerCase() + line.slice(1, 120);
}
