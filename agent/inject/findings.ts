import type { Path } from './changes';

/** Something about one field of a pod: a reason to refuse it, or something to know. */
export interface Finding {
  /** Below the pod or its template. */
  readonly path: Path;
  /** The rule that it breaks, e.g. `must not be true`, with the reason. */
  readonly rule: string;
  /** What to do about it. */
  readonly hint?: string;
}

/** `spec.containers[1].image`, as Kubernetes writes fields; a name with dots or slashes of its own stands in brackets. */
export function fieldName(path: Path): string {
  const parts = path.map((part) => {
    if (typeof part === 'number') return `[${part}]`;
    return /^[\w-]{1,63}$/.test(part) ? `.${part}` : `[${JSON.stringify(part.slice(0, 63))}]`;
  });
  return parts.join('').replace(/^\./, '');
}
