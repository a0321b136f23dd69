import type { Document, Node, Pair, YAMLMap } from 'yaml';
import { type AgentError, type ErrorCode, invalid } from './errors';
import { lineFinder } from './line-finder';

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

/** The package's nodes, for those who edit texts. */
export type YamlNode = Node;
export type YamlPair = Pair<unknown, unknown>;
export type YamlDocument = Document.Parsed;
export type YamlPackage = typeof import('yaml');

/** A YAML text that reads without an error or a warning. */
export interface YamlText {
  readonly document: Document.Parsed;
  /** The package, loaded by the first text that is read: its node predicates belong to it. */
  readonly yaml: YamlPackage;
  /** An error that names the file and, of an offset in the text, the line. */
  refuse(offset: number | undefined, rule: string): AgentError;
}

/**
 * Reads one YAML document of schema `core` into nodes, in time linear in its size: no merges, and nothing is expanded.
 *
 * @throws AgentError `limits.code` naming the file and, where one is at fault, the line.
 */
export async function parseYaml(bytes: Uint8Array, limits: YamlLimits): Promise<YamlText> {
  const { text, yaml, refuse } = await open(bytes, limits);
  const document = yaml.parseDocument(text, PARSING);
  const problem = document.errors[0] ?? document.warnings[0];
  if (problem) throw refuse(problem.pos[0], `is not YAML: ${firstLine(problem.message)}`);
  return { document, yaml, refuse };
}

/** The documents of a YAML text, to be edited in it: offsets of nodes are offsets in `text`. */
export interface YamlStream {
  readonly text: string;
  /**
   * In their order, each read when it is asked for, so that no more than one has to be held. Can be gone through once.
   *
   * @throws AgentError `limits.code` naming the file and, where one is at fault, the line.
   */
  readonly documents: Iterable<YamlDocument>;
  readonly yaml: YamlPackage;
  /**
   * An error that names the file and, of an offset in the text, the line: `app.yaml:12`.
   *
   * @param within  What is at fault there, e.g. `document 2, spec.replicas`.
   */
  refuse(
    offset: number | undefined,
    rule: string,
    more?: { readonly within?: string; readonly hint?: string | undefined },
  ): AgentError;
}

/** What a stream is read with beyond its limits. */
export interface YamlStreamOptions extends YamlLimits {
  /** Whether nodes know the signs that they stand in, for those who edit the text. */
  readonly keepsSigns: boolean;
  /** What a person can do about a text that is no YAML. */
  readonly hint?: string | undefined;
  /** Called now and then with how much has been read, in [0, 1]. */
  readonly onProgress?: ((share: number) => void) | undefined;
}

/**
 * Reads the documents of a YAML text, each as `parseYaml` reads one. A byte order mark stays in the text.
 *
 * @throws AgentError `limits.code` naming the file: too large, or not UTF-8. What else is wrong is found when `documents` comes to it.
 */
export async function openYamlStream(
  bytes: Uint8Array,
  options: YamlStreamOptions,
): Promise<YamlStream> {
  const text = decode(bytes, options);
  const yaml = await import('yaml');
  const lineAt = lineFinder(text);
  const refuse: YamlStream['refuse'] = (offset, rule, { within, hint } = {}) => {
    const place = offset === undefined ? options.name : `${options.name}:${lineAt(offset)}`;
    return invalid(
      options.code,
      within === undefined ? place : `${place} ${within}`,
      rule,
      hint === undefined ? {} : { hint },
    );
  };
  return { text, yaml, refuse, documents: documentsOf({ text, yaml, refuse }, options) };
}

function* documentsOf(
  stream: Omit<YamlStream, 'documents'>,
  options: YamlStreamOptions,
): Generator<YamlDocument> {
  const { refuse, yaml } = stream;
  const composer = new yaml.Composer({ ...PARSING, keepSourceTokens: options.keepsSigns });
  for (const document of composer.compose(tokensOf(stream, options))) {
    // A bracket that closes as deep as its key stands is common, and wrong by the letter alone.
    const problem =
      document.errors[0] ?? document.warnings.find(({ code }) => code !== 'BAD_INDENT');
    if (problem)
      throw refuse(problem.pos[0], `is not YAML: ${firstLine(problem.message)}`, {
        hint: options.hint,
      });
    yield document;
  }
}

// Pretty errors and the unique-key check take time square in the input.
const PARSING = { prettyErrors: false, uniqueKeys: false, schema: 'core', merge: false } as const;

async function open(bytes: Uint8Array, limits: YamlLimits) {
  const { name, code } = limits;
  const text = decode(bytes, limits);
  const yaml = await import('yaml');
  const refuse = (offset: number | undefined, rule: string) =>
    invalid(code, offset === undefined ? name : `${name} line ${lineFinder(text)(offset)}`, rule);
  for (const _ of tokensOf({ text, yaml, refuse }, limits));
  return { text, yaml, refuse };
}

/** What the package composes documents of. Words and signs are counted before, and how deep they nest. */
function* tokensOf(
  { text, yaml, refuse }: Omit<YamlStream, 'documents'>,
  limits: YamlLimits & Pick<Partial<YamlStreamOptions>, 'onProgress'>,
) {
  const { maxTokens, onProgress } = limits;
  const parser = new yaml.Parser();
  let tokens = 0;
  for (const token of new yaml.Lexer().lex(text)) {
    tokens += 1;
    if (tokens > maxTokens)
      throw refuse(undefined, `must not have more than ${maxTokens} words and signs`);
    if (tokens % PROGRESS_TOKENS === 0) onProgress?.(parser.offset / text.length);
    yield* parser.next(token);
    // What comes after this parser calls itself for what is nested, and an overflow there may end the process rather than throw.
    if (parser.stack.length > MAX_DEPTH) throw refuse(parser.offset, 'is nested too deeply');
  }
  yield* parser.end();
}

/** Some tenths of a second. */
const PROGRESS_TOKENS = 50_000;
/** Twice what a person writes: a pod's deepest field has some twenty above it. */
const MAX_DEPTH = 100;

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
  const document = yaml.parseDocument(Buffer.from(bytes).toString('utf8'), {
    schema: 'failsafe',
    uniqueKeys: false,
    merge: false,
  });
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) document.delete(key);
    else document.set(key, value);
  }
  return Buffer.from(document.toString({ lineWidth: 0 }));
}

function decode(bytes: Uint8Array, { name, code, maxBytes }: YamlLimits): string {
  if (bytes.length > maxBytes)
    throw invalid(code, name, `must not be larger than ${maxBytes / 1024} KiB`);
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (caught) {
    throw invalid(code, name, 'must be UTF-8', { cause: caught });
  }
}

function firstLine(message: string): string {
  const line = message.split('\n', 1)[0]!;
  return line.charAt(0).toLowerCase() + line.slice(1, 120);
}
