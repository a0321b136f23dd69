import { CoveringRules, exhausted, ruleName } from './covering-rules';
import type { AuthzRule } from './fields';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio/istio issue 23526 */
export const unreachableRule: Lint = {
  name: 'unreachable-rule',
  summary: 'Other rules of the same action take everything that a rule takes.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    for (const action of ['DENY', 'ALLOW']) {
      const known = new CoveringRules(set, action);
      const unreachable = new Set<AuthzRule>();
      // From behind, so that of two equal ones the first stays.
      for (const rule of [...set.rulesOf(action)].reverse()) {
        const around = known.around(rule, unreachable);
        if (known.isExhausted) {
          yield* exhausted(rule);
          break;
        }
        if (!around) continue;
        unreachable.add(rule);
        yield {
          resource: rule.policy,
          path: rule.path,
          message: `changes nothing: ${around.map(ruleName).join(' and ')} ${action === 'DENY' ? 'denies' : 'allows'} all that it matches`,
          hint: 'remove it, or narrow the other',
        };
      }
    }
  },
};
