import type { FieldPath, Resource } from '../resources/resource';
import type { LintedSet } from './linted-set';

/** One trap: policies that are valid, and do not what they seem to. */
export interface Lint {
  /** In kebab case, as annotations and answers have it. */
  readonly name: string;
  /** What it finds, one sentence, present tense. */
  readonly summary: string;
  readonly find: (set: LintedSet) => Iterable<LintFinding>;
}

export interface LintFinding {
  readonly resource: Resource;
  /** Below the document, such as `['spec', 'rules', 0]`. */
  readonly path: FieldPath;
  /** What happens, to be read behind the path. */
  readonly message: string;
  /** What to write instead, an imperative. */
  readonly hint: string;
}
