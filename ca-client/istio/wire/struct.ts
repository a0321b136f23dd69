import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { type AgentError, invalid } from '../../../agent/base/errors';

/** `google.protobuf.Struct`, `Value` and `ListValue` by field number. */
const STRUCT_FIELDS = 1;
const ENTRY = { key: 1, value: 2 } as const;
const VALUE = { string: 3, struct: 5, list: 6 } as const;
const LIST_VALUES = 1;

/** Nobody's metadata nests; each level is a turn of recursion here. */
const MAX_DEPTH = 16;
/** Upstream sends one or two names. */
const MAX_NAMES = 64;
/** Names that would reach into an object's prototype wherever somebody makes an object of them. */
const FORBIDDEN_NAMES = new Set(['__proto__', 'constructor', 'prototype']);

/** Texts by name as a `google.protobuf.Struct`. */
export function encodeStruct(texts: ReadonlyMap<string, string>): Buffer {
  const writer = new BinaryWriter();
  for (const [name, text] of texts) {
    writer.tag(STRUCT_FIELDS, WireType.LengthDelimited).fork();
    writer.tag(ENTRY.key, WireType.LengthDelimited).string(name);
    writer.tag(ENTRY.value, WireType.LengthDelimited).fork();
    writer.tag(VALUE.string, WireType.LengthDelimited).string(text);
    writer.join().join();
  }
  return Buffer.from(writer.finish());
}

/**
 * Reads the outermost names of a `google.protobuf.Struct` from a stranger; what lies deeper is checked and dropped. The last of equal names
 * counts, as everywhere in protobuf.
 *
 * @returns Texts by name; undefined for a value of another kind.
 * @throws  AgentError ERR_PARSE with `field` and `rule`: malformed, nested beyond 16 levels, more than 64 names, or a name such as
 *          `__proto__`.
 */
export function parseStruct(
  bytes: Uint8Array,
  field: string,
): ReadonlyMap<string, string | undefined> {
  const refuse = (rule: string, cause?: unknown) => invalid('ERR_PARSE', field, rule, { cause });
  try {
    return readStruct(bytes, 0, refuse);
  } catch (caught) {
    if ((caught as AgentError).rule !== undefined) throw caught;
    throw refuse('must be a well-formed protobuf Struct', caught);
  }
}

type Refuse = (rule: string) => AgentError;

function readStruct(
  bytes: Uint8Array,
  depth: number,
  refuse: Refuse,
): ReadonlyMap<string, string | undefined> {
  if (depth > MAX_DEPTH) throw refuse(`must not nest deeper than ${MAX_DEPTH} levels`);
  const texts = new Map<string, string | undefined>();
  for (const part of parts(bytes, refuse)) {
    if (part.field !== STRUCT_FIELDS) continue;
    const [name, text] = readEntry(part.bytes, depth, refuse);
    if (FORBIDDEN_NAMES.has(name)) throw refuse(`must not have the name ${name}`);
    texts.set(name, text);
    if (texts.size > MAX_NAMES) throw refuse(`must not have more than ${MAX_NAMES} names`);
  }
  return texts;
}

function readEntry(bytes: Uint8Array, depth: number, refuse: Refuse): [string, string | undefined] {
  let name = '';
  let text: string | undefined;
  for (const part of parts(bytes, refuse)) {
    if (part.field === ENTRY.key) name = readText(part.bytes);
    else if (part.field === ENTRY.value) text = readValue(part.bytes, depth + 1, refuse);
  }
  return [name, text];
}

function readValue(bytes: Uint8Array, depth: number, refuse: Refuse): string | undefined {
  if (depth > MAX_DEPTH) throw refuse(`must not nest deeper than ${MAX_DEPTH} levels`);
  let text: string | undefined;
  for (const part of parts(bytes, refuse)) {
    text = part.field === VALUE.string ? readText(part.bytes) : undefined;
    if (part.field === VALUE.struct) readStruct(part.bytes, depth + 1, refuse);
    if (part.field === VALUE.list) {
      for (const item of parts(part.bytes, refuse))
        if (item.field === LIST_VALUES) readValue(item.bytes, depth + 1, refuse);
    }
  }
  return text;
}

/** The length-delimited fields in order. Numbers, booleans and nulls are skipped; groups, which proto3 does not have, are refused. */
function* parts(
  bytes: Uint8Array,
  refuse: Refuse,
): Generator<{ readonly field: number; readonly bytes: Uint8Array }> {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (type === WireType.LengthDelimited) yield { field, bytes: reader.bytes() };
    else if (type === WireType.StartGroup || type === WireType.EndGroup)
      throw refuse('must not contain groups');
    else reader.skip(type);
  }
}

function readText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}
