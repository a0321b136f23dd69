import { suggestion } from '../../base/suggestion';
import type { Resource } from '../resources/resource';
import type { LintFinding } from './lint';

const ANNOTATION = 'keyturn.dev/policy-ignore';

/** Lints that resources turn off, `*` all of them. */
export class IgnoredLints {
  constructor(private readonly names: readonly string[]) {}

  has(resource: Resource, lint: string): boolean {
    const ignored = namesOf(resource);
    return ignored.includes(lint) || ignored.includes('*');
  }

  /** A misspelt name would leave a reader in the belief that something was looked at. */
  unknown(resource: Resource): LintFinding[] {
    return namesOf(resource)
      .filter((each) => each !== '*' && !this.names.includes(each))
      .map((name) => {
        const near = suggestion(name, this.names);
        return {
          resource,
          path: ['metadata', 'annotations', ANNOTATION],
          message: `${name} is no lint`,
          hint: near === undefined ? 'see keyturn policy lints' : `write ${near}`,
        };
      });
  }
}

function namesOf({ annotations }: Resource): string[] {
  return (annotations[ANNOTATION] ?? '')
    .split(',')
    .map((each) => each.trim())
    .filter((each) => each !== '');
}
