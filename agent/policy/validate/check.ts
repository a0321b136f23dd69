import { isObject, objectOf } from '../resources/fields';
import { formatPath, MAX_PROBLEMS, type Problem } from '../resources/problem';
import type { FieldPath, Json, JsonObject, Resource } from '../resources/resource';

/** Gathers what is wrong in a resource whose fields have the right types. */
export class Check {
  readonly problems: Problem[] = [];

  constructor(readonly resource: Resource) {}

  refuse(path: FieldPath, message: string, hint?: string): undefined {
    if (this.problems.length >= MAX_PROBLEMS) return;
    const source = this.resource.at(path);
    this.problems.push({ source, path: formatPath(path), message, hint });
  }

  /** The members of a list with their paths; what is absent has none. */
  each(value: Json | undefined, path: FieldPath): { item: JsonObject; at: FieldPath }[] {
    return Array.isArray(value)
      ? value.map((item, index) => ({ item: objectOf(item), at: [...path, index] }))
      : [];
  }

  /** Every text of a list, which must not be empty. */
  texts(value: Json | undefined, path: FieldPath): { text: string; at: FieldPath }[] {
    const all = Array.isArray(value) ? value.map(String) : [];
    const found = all.map((text, index) => ({ text, at: [...path, index] }));
    for (const { text, at } of found) if (text === '') this.refuse(at, 'must not be empty');
    return found;
  }

  /** A text that has to be there. */
  needed(value: Json | undefined, path: FieldPath): void {
    if (value === undefined || value === '') this.refuse(path, 'must not be empty');
  }

  /** Labels that select workloads. */
  labels(value: Json | undefined, path: FieldPath): void {
    for (const [key, label] of Object.entries(isObject(value) ? value : {})) {
      if (key === '') this.refuse(path, 'must not have an empty label');
      if (`${key}${String(label)}`.includes('*'))
        this.refuse([...path, key], 'must not have a wildcard: labels are compared as they are');
    }
  }

  port(value: Json | undefined, path: FieldPath): void {
    const number = typeof value === 'number' ? value : Number.NaN;
    if (!(number >= 1 && number <= MAX_PORT)) this.refuse(path, `must be 1 to ${MAX_PORT}`);
  }
}

export const MAX_PORT = 65_535;
