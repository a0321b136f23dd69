/** Where a value is below the pod (or its template): names of members and indices of items. */
export type Path = readonly (string | number)[];

/** A mapping of JSON or YAML. */
export type Members = Readonly<Record<string, unknown>>;

/**
 * One change of a value. All paths of a list of changes are those of the value *before* it, in its order; so a list is applied from its end
 * (as `jsonPatch` does), or all at once. `add` of a number puts an item before the one at that index; the list's length means its end.
 */
export type Change =
  | { readonly kind: 'add'; readonly path: Path; readonly value: unknown }
  | { readonly kind: 'set'; readonly path: Path; readonly value: unknown }
  | { readonly kind: 'remove'; readonly path: Path };

/** An operation of RFC 6902. */
export interface JsonPatchOperation {
  readonly op: 'add' | 'replace' | 'remove';
  /** A JSON Pointer (RFC 6901). */
  readonly path: string;
  readonly value?: unknown;
}

/** The least changes that turn one JSON value into another. Items of lists are known again by their name, or by being equal. */
export function changesBetween(before: unknown, after: unknown, path: Path = []): Change[] {
  if (isSameValue(before, after)) return [];
  // What is empty gets its whole value at once.
  if (isEmpty(before) && path.length > 0) return [{ kind: 'set', path, value: after }];
  if (Array.isArray(before) && Array.isArray(after)) return listChanges(before, after, path);
  if (isMembers(before) && isMembers(after)) return memberChanges(before, after, path);
  return [{ kind: 'set', path, value: after }];
}

function isEmpty(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0;
}

/** A patch that a server applies in its order: the last change first, so that no index moves before it is used. */
export function jsonPatch(changes: readonly Change[]): JsonPatchOperation[] {
  return changes.toReversed().map((change) => {
    const path = change.path
      .map((part) => `/${String(part).replaceAll('~', '~0').replaceAll('/', '~1')}`)
      .join('');
    if (change.kind === 'remove') return { op: 'remove', path };
    return { op: change.kind === 'add' ? 'add' : 'replace', path, value: change.value };
  });
}

/** Whether two JSON values say the same; the order of members does not count, nor does what made the objects. */
export function isSameValue(one: unknown, other: unknown): boolean {
  if (Object.is(one, other)) return true;
  if (Array.isArray(one) && Array.isArray(other)) {
    return (
      one.length === other.length && one.every((each, index) => isSameValue(each, other[index]))
    );
  }
  if (!isMembers(one) || !isMembers(other)) return false;
  const names = Object.keys(one);
  return (
    names.length === Object.keys(other).length &&
    names.every((name) => Object.hasOwn(other, name) && isSameValue(one[name], other[name]))
  );
}

/** Whether a value is a mapping. */
export function isMembers(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What an item of a list is known by: `mountPath`, for a volume may be mounted twice, or `name`; undefined where it has neither. */
export function itemKey(item: unknown): string | undefined {
  if (!isMembers(item)) return undefined;
  const key = item.mountPath ?? item.name;
  return typeof key === 'string' ? key : undefined;
}

function memberChanges(before: Members, after: Members, path: Path): Change[] {
  const kept = Object.keys(before).flatMap((key): Change[] =>
    Object.hasOwn(after, key)
      ? changesBetween(before[key], after[key], [...path, key])
      : [{ kind: 'remove', path: [...path, key] }],
  );
  const added = Object.keys(after).filter((key) => !Object.hasOwn(before, key));
  return [
    ...kept,
    ...added.map((key): Change => ({ kind: 'add', path: [...path, key], value: after[key] })),
  ];
}

function listChanges(before: readonly unknown[], after: readonly unknown[], path: Path): Change[] {
  const changes: Change[] = [];
  const removeUntil = (end: number) => {
    for (; at < end; at += 1) changes.push({ kind: 'remove', path: [...path, at] });
  };
  let at = 0;
  for (const item of after) {
    const found = before.findIndex((each, index) => index >= at && isSameItem(each, item));
    if (found < 0) {
      changes.push({ kind: 'add', path: [...path, at], value: item });
      continue;
    }
    removeUntil(found);
    changes.push(...changesBetween(before[found], item, [...path, found]));
    at = found + 1;
  }
  removeUntil(before.length);
  return changes;
}

function isSameItem(one: unknown, other: unknown): boolean {
  const key = itemKey(one);
  return key === undefined ? isSameValue(one, other) : key === itemKey(other);
}
