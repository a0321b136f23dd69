import { actionOf } from '../authz/rbac';
import type { Resource } from '../resources/resource';
import { matchLabels } from '../workload';
import { cases, covers, isOfAddress } from './coverage';
import type { AuthzRule, RuleField } from './fields';
import type { LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** Comparisons of two alternatives; 3,000 rules with 3,000 others, all by wildcards, are more. */
const MAX_COMPARISONS = 1_000_000;

/** One alternative of a rule. */
interface Alternative {
  readonly rule: AuthzRule;
  readonly fields: readonly RuleField[];
}

/** Alternatives of a namespace, those that ask for a plain value by that value. */
class Alternatives {
  readonly #byValue = new Map<string, Alternative[]>();
  readonly #others: Alternative[] = [];

  add(rule: AuthzRule): void {
    for (const fields of rule.alternatives) {
      const field = fields.find(isPlain);
      if (!field) this.#others.push({ rule, fields });
      for (const value of field?.values ?? []) {
        const key = keyOf(field!, value);
        const known = this.#byValue.get(key);
        if (known) known.push({ rule, fields });
        else this.#byValue.set(key, [{ rule, fields }]);
      }
    }
  }

  /** Those that may take everything that has these fields. */
  *around(fields: readonly RuleField[]): Generator<Alternative> {
    yield* this.#others;
    for (const field of fields.filter(isPlain))
      yield* this.#byValue.get(keyOf(field, field.values[0]!)) ?? [];
  }
}

/** Whether a field asks for one of some texts, each compared as it is. */
function isPlain({ attribute, isNegative, values }: RuleField): boolean {
  return !isNegative && !isOfAddress(attribute) && !values.some((each) => /[*{]/.test(each));
}

const keyOf = ({ attribute }: RuleField, value: string) => `${attribute}=${value.toLowerCase()}`;

/** Rules of one action, found by the policies whose workloads are among those that they apply to. */
export class CoveringRules {
  readonly #byNamespace = new Map<string, Alternatives>();
  #left = MAX_COMPARISONS;

  constructor(
    private readonly set: LintedSet,
    action: string,
  ) {
    for (const policy of set.authorization) {
      if (actionOf(policy.spec) !== action) continue;
      const known = this.#byNamespace.get(policy.namespace) ?? new Alternatives();
      for (const rule of set.rules(policy)) known.add(rule);
      this.#byNamespace.set(policy.namespace, known);
    }
  }

  /** Whether there were too many rules to compare each with all that may take what it takes. */
  get isExhausted(): boolean {
    return this.#left <= 0;
  }

  /**
   * The rules, all but the ones left out, that together take whatever this rule takes; undefined where
   * they do not, or where it was not found out.
   */
  around(rule: AuthzRule, without: ReadonlySet<AuthzRule>): readonly AuthzRule[] | undefined {
    if (!rule.hasAllAlternatives) return undefined;
    const found = new Set<AuthzRule>();
    for (const one of cases(rule)) {
      const other = this.#coverOf(one, rule, without);
      if (!other) return undefined;
      found.add(other);
    }
    return [...found];
  }

  #coverOf(one: readonly RuleField[], rule: AuthzRule, without: ReadonlySet<AuthzRule>) {
    const { policy } = rule;
    for (const namespace of new Set([policy.namespace, this.set.mesh.rootNamespace]))
      for (const other of this.#byNamespace.get(namespace)?.around(one) ?? []) {
        this.#left -= 1;
        if (this.isExhausted) return undefined;
        if (other.rule === rule || without.has(other.rule)) continue;
        if (covers(other.fields, one) && appliesTo(other.rule.policy, policy)) return other.rule;
      }
    return undefined;
  }
}

/** Whether every workload of the inner policy is one of the outer. */
function appliesTo(outer: Resource, inner: Resource): boolean {
  const selector = matchLabels(inner.spec);
  return Object.entries(matchLabels(outer.spec)).every(([name, value]) => selector[name] === value);
}

/** Says of the rule at which comparing ended that it did. */
export function* exhausted({ policy, path }: AuthzRule): Generator<LintFinding> {
  yield {
    resource: policy,
    path,
    message: 'and what follows were not compared with all other rules: there are too many',
    hint: 'write rules that differ in one value only as one rule with several values',
  };
}

/** How messages name a rule: `shop/deny rule 0 (deny.yaml:9)`. */
export function ruleName({ policy, path }: AuthzRule): string {
  const { file, line } = policy.at(path);
  return `${policy.namespace}/${policy.name} rule ${path.at(-1)} (${file}:${line})`;
}
