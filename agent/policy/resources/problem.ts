import type { FieldPath, Source } from './resource';

/** What is wrong in a file, or worth knowing about it. */
export interface Problem {
  readonly source: Source;
  /** The field: `spec.rules[0].to`; empty for a whole document. */
  readonly path: string;
  /** What it must be, or what it does, to be read behind the path. */
  readonly message: string;
  readonly hint?: string | undefined;
}

/** Of one document; what is wrong beyond them is of the same kind. */
export const MAX_PROBLEMS = 100;

/** `spec.rules[0].when`; keys that are no plain words in quotes. */
export function formatPath(path: FieldPath): string {
  return path
    .map((step, index) => {
      if (typeof step === 'number') return `[${step}]`;
      const isPlain = /^[\w-]+$/.test(step);
      if (!isPlain) return `[${JSON.stringify(step)}]`;
      return index === 0 ? step : `.${step}`;
    })
    .join('');
}

export function formatProblem({ source, path, message, hint }: Problem): string {
  const what = path === '' ? message : `${path} ${message}`;
  return `${source.file}:${source.line}: ${what}${hint === undefined ? '' : ` (${hint})`}`;
}
