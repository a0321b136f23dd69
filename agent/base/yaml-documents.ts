import {
  constructFromEvents,
  EVENT_ID,
  type Event,
  getScalarValue,
  parseEvents,
  YAMLException,
} from 'js-yaml';
import { lineFinder } from './line-finder';

/** A document of a YAML text as plain values: mappings, lists, texts, numbers, booleans and null. */
export interface LocatedDocument {
  /** Aliases are the values that they stand for, so one value may be found in several places. */
  readonly value: unknown;
  /** The line, from 1, of what has this path, or of the nearest above it that is there. */
  lineOf(path: readonly (string | number)[]): number;
}

/** Why a text is not YAML, or holds what its reader must not be given. */
export interface YamlProblem {
  readonly line: number;
  readonly reason: string;
}

/** More are a bomb, or a mistake. */
const MAX_ALIASES = 1_000;
const MAX_DEPTH = 100;

/**
 * Reads the documents of a text of YAML 1.2, schema `core`: no merges, no key twice, no more than 1,000
 * aliases in a document and 100 collections in each other. Twenty times as fast as the package that keeps
 * comments and can write, and knows lines all the same.
 */
export function readYamlDocuments(source: string): readonly LocatedDocument[] | YamlProblem {
  try {
    const events = parseEvents(source, { maxDepth: MAX_DEPTH });
    const values = constructFromEvents(events, { source, maxAliases: MAX_ALIASES });
    const starts = documentStarts(events);
    const lineAt = lineFinder(source);
    return values.map((value, index) => ({
      value,
      lineOf: (path) => lineAt(offsetOf({ source, events }, starts[index]!, path)),
    }));
  } catch (caught) {
    if (!(caught instanceof YAMLException)) throw caught;
    return { line: (caught.mark?.line ?? 0) + 1, reason: caught.reason };
  }
}

interface Parsed {
  readonly source: string;
  readonly events: readonly Event[];
}

function documentStarts(events: readonly Event[]): number[] {
  return events.flatMap(({ type }, index) => (type === EVENT_ID.DOCUMENT ? [index + 1] : []));
}

/** Where in the text a path below the node of an event lies. */
function offsetOf(parsed: Parsed, start: number, path: readonly (string | number)[]): number {
  let at = start;
  let offset = startOf(parsed.events[at]) ?? 0;
  for (const step of path) {
    const found = childOf(parsed, resolved(parsed, at), step);
    if (found === undefined) break;
    at = found.value;
    offset = found.offset ?? offset;
  }
  return offset;
}

function startOf(event: Event | undefined): number | undefined {
  switch (event?.type) {
    case EVENT_ID.SCALAR:
      // Of nothing there is no place.
      return event.valueStart < 0 ? undefined : event.valueStart;
    case EVENT_ID.MAPPING:
    case EVENT_ID.SEQUENCE:
      return event.start;
    case EVENT_ID.ALIAS:
      return event.anchorStart;
    default:
      return undefined;
  }
}

/** What an alias stands for: the last node before it with its anchor. */
function resolved({ source, events }: Parsed, at: number): number {
  const event = events[at];
  if (event?.type !== EVENT_ID.ALIAS) return at;
  const name = source.slice(event.anchorStart, event.anchorEnd);
  for (let index = at - 1; index >= 0; index -= 1) {
    const each = events[index]!;
    if (
      'anchorStart' in each &&
      each.type !== EVENT_ID.ALIAS &&
      source.slice(each.anchorStart, each.anchorEnd) === name
    )
      return index;
  }
  return at;
}

/** A member by its key or index: the event of its value, and where its line begins: at the key. */
function childOf({ source, events }: Parsed, at: number, step: string | number) {
  const parent = events[at]?.type;
  const isMapping = parent === EVENT_ID.MAPPING;
  if (!isMapping && parent !== EVENT_ID.SEQUENCE) return undefined;
  let index = at + 1;
  for (let count = 0; events[index] && events[index]!.type !== EVENT_ID.POP; count += 1) {
    const key = events[index]!;
    const value = isMapping ? afterNode(events, index) : index;
    const isIt = isMapping
      ? key.type === EVENT_ID.SCALAR && getScalarValue(source, key) === String(step)
      : count === step;
    if (isIt) return { value, offset: startOf(key) };
    index = afterNode(events, value);
  }
  return undefined;
}

function afterNode(events: readonly Event[], at: number): number {
  let depth = 0;
  for (let index = at; index < events.length; index += 1) {
    const { type } = events[index]!;
    if (type === EVENT_ID.MAPPING || type === EVENT_ID.SEQUENCE) depth += 1;
    else if (type === EVENT_ID.POP) depth -= 1;
    if (depth === 0) return index + 1;
  }
  return events.length;
}
