import type { Document, YAMLMap } from 'yaml';
import { type AgentError, type ErrorCode, invalid } from './errors';

export interface YamlLimits {
  /** How errors call the file, e.g. `file keyturn.yaml`. */
  readonly name: string;
  readonly code: ErrorCode;
  readonly maxBytes: number;
  /** Words and signs; each wrong one costs the parser an error object. */
  readonly maxTokens: number;
}

/** A mapping in a document: pairs of nodes. */
export type YamlMapping = YAMLMap;

/** A YAML text that reads without an error or a warning. */
export interface YamlText {
  readonly document: Document.Parsed;
  /** The package, loaded by the first text that is read: its node predicates belong to it. */
  readonly yaml: typeof import('yaml');
  /** An error that names the file and, of an offset in the text, the line. */
  refuse(offset: number | undefined, rule: string): AgentError;
}

/**
 * Reads one YAML document of schema `core` into nodes, in time linear in its size: no merges, and nothing is expanded.
 *
 * @throws AgentError `limits.code` naming the file and, where one is at fault, the line.
 */
export async function parseYaml(bytes: Uint8Array, limits: YamlLimits): Promise<YamlText> {
  const { name, code, maxBytes, maxTokens } = limits;
  if (bytes.length > maxBytes) throw invalid(code, name, `must not be larger than ${maxBytes / 1024} KiB`);
  const text = decode(bytes, limits);
  const yaml = await import('yaml');
  const refuse = (offset: number | undefined, rule: string) => invalid(code, `${name}${lineOf(text, offset)}`, rule);
  let tokens = 0;
  for (const _ of new yaml.Lexer().lex(text)) {
    tokens += 1;
    if (tokens > maxTokens) throw refuse(undefined, `must not have more than ${maxTokens} words and signs`);
  }
  // Pretty errors and the unique-key check take time square in the input.
  const document = yaml.parseDocument(text, { prettyErrors: false, uniqueKeys: false, schema: 'core', merge: false });
  const problem = document.errors[0] ?? document.warnings[0];
  if (problem) throw refuse(problem.pos[0], `is not YAML: ${firstLine(problem.message)}`);
  return { document, yaml, refuse };
}

/**
 * As `parseYaml`, but plain values: mappings, lists, strings, numbers, booleans and null. Aliases are refused, so a small text cannot
 * become a large value. Of a key that is given twice the last one counts.
 */
export async function readYaml(bytes: Uint8Array, limits: YamlLimits): Promise<unknown> {
  const { document, yaml, refuse } = await parseYaml(bytes, limits);
  yaml.visit(document, {
    Alias: (_, alias) => {
      throw refuse(alias.range?.[0], 'aliases are not allowed');
    },
  });
  return document.toJS();
}

/**
 * A mapping with some of its values replaced, added (a text) or taken out (undefined). Comments and order stay, and so does how values are
 * written: `0660` is not made a number.
 *
 * @throws AgentError as `parseYaml`.
 */
export async function editYaml(
  bytes: Uint8Array,
  changes: Readonly<Record<string, string | undefined>>,
  limits: YamlLimits,
): Promise<Buffer> {
  const { yaml } = await parseYaml(bytes, limits);
  const document = yaml.parseDocument(Buffer.from(bytes).toString('utf8'), { schema: 'failsafe', uniqueKeys: false, merge: false });
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) document.delete(key);
    else document.set(key, value);
  }
  return Buffer.from(document.toString({ lineWidth: 0 }));
}

function decode(bytes: Uint8Array, { name, code }: YamlLimits): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (caught) {
    throw invalid(code, name, 'must be UTF-8', { cause: caught });
  }
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
