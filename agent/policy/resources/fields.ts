import type { Json, JsonObject } from './resource';

/** Readers of fields whose types the tables have assured: what is absent is empty. */
export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function objectOf(value: Json | undefined): JsonObject {
  return isObject(value) ? value : {};
}

export function objectsOf(value: Json | undefined): readonly JsonObject[] {
  return Array.isArray(value) ? value.map(objectOf) : [];
}

export function textsOf(value: Json | undefined): readonly string[] {
  return Array.isArray(value) ? value.map(String) : [];
}

export function textOf(value: Json | undefined): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** A mapping of texts, such as labels. */
export function textMapOf(value: Json | undefined): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(objectOf(value)).map(([key, each]) => [key, String(each)]),
  );
}

/** The order of code units, which is that of bytes for ASCII. */
export function compareTexts(one: string, other: string): number {
  if (one === other) return 0;
  return one < other ? -1 : 1;
}

/** The field that excludes what another one names: `notPaths` for `paths`. */
export function notName(name: string): string {
  return `not${name[0]!.toUpperCase()}${name.slice(1)}`;
}

/** proto3 JSON: what has the value of its type's default is not written. */
export function withoutDefaults(fields: Readonly<Record<string, Json | undefined>>): JsonObject {
  return Object.fromEntries(
    Object.entries(fields).filter((field): field is [string, Json] => !isDefault(field[1])),
  );
}

function isDefault(value: Json | undefined): boolean {
  return (
    value === undefined ||
    value === '' ||
    value === false ||
    value === 0 ||
    (Array.isArray(value) && value.length === 0)
  );
}
