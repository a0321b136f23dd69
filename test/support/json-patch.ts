import type { JsonPatchOperation } from '../../agent/inject/changes';

/** Applies a patch in its order, as an API server does. Throws where an operation has no place (RFC 6902 section 4). */
export function applyPatch(value: unknown, patch: readonly JsonPatchOperation[]): unknown {
  return patch.reduce((root, { op, path, value: given }) => {
    const parts = path
      .split('/')
      .slice(1)
      .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
    const last = parts.pop()!;
    // biome-ignore lint/suspicious/noExplicitAny: any JSON value passes through here
    const parent = parts.reduce((at: any, part) => {
      if (typeof at !== 'object' || at === null || !Object.hasOwn(at, part))
        throw new Error(`${path}: ${part} is not there`);
      return at[part];
    }, root);
    if (op !== 'add' && !Object.hasOwn(parent, last))
      throw new Error(`${path}: ${last} is not there`);
    if (!Array.isArray(parent)) {
      if (op === 'remove') delete parent[last];
      else parent[last] = structuredClone(given);
      return root;
    }
    const index = Number(last);
    if (index > parent.length) throw new Error(`${path}: beyond the end`);
    parent.splice(
      index,
      op === 'add' ? 0 : 1,
      ...(op === 'remove' ? [] : [structuredClone(given)]),
    );
    return root;
  }, structuredClone(value));
}
