import { actionOf } from '../authz/rbac';
import type { Resource } from '../resources/resource';
import { matchLabels } from '../workload';
import { cases, covers } from './coverage';
import type { AuthzRule, RuleField } from './fields';
import type { LintedSet } from './linted-set';

/** Rules of one action, found by the policies whose workloads are among those that they apply to. */
export class CoveringRules {
  readonly #byNamespace = new Map<string, AuthzRule[]>();

  constructor(
    private readonly set: LintedSet,
    action: string,
  ) {
    for (const policy of set.authorization) {
      if (actionOf(policy.spec) !== action) continue;
      const known = this.#byNamespace.get(policy.namespace) ?? [];
      known.push(...set.rules(policy));
      this.#byNamespace.set(policy.namespace, known);
    }
  }

  /**
   * The rules, all but the ones left out, that together take whatever this rule takes; undefined where
   * they do not.
   */
  around(rule: AuthzRule, without: ReadonlySet<AuthzRule>): readonly AuthzRule[] | undefined {
    const others = this.#applyingTo(rule.policy).filter(
      (each) => each !== rule && !without.has(each),
    );
    if (others.length === 0) return undefined;
    const found = new Set<AuthzRule>();
    for (const one of cases(rule)) {
      const other = others.find((each) => takes(each, one));
      if (!other) return undefined;
      found.add(other);
    }
    return [...found];
  }

  #applyingTo(policy: Resource): readonly AuthzRule[] {
    const selector = matchLabels(policy.spec);
    return [...new Set([policy.namespace, this.set.mesh.rootNamespace])]
      .flatMap((namespace) => this.#byNamespace.get(namespace) ?? [])
      .filter((each) =>
        Object.entries(matchLabels(each.policy.spec)).every(
          ([name, value]) => selector[name] === value,
        ),
      );
  }
}

function takes(rule: AuthzRule, one: readonly RuleField[]): boolean {
  return rule.alternatives.some((fields) => covers(fields, one));
}

/** How messages name a rule: `shop/deny rule 0 (deny.yaml:9)`. */
export function ruleName({ policy, path }: AuthzRule): string {
  const { file, line } = policy.at(path);
  return `${policy.namespace}/${policy.name} rule ${path.at(-1)} (${file}:${line})`;
}
