import { CoveringRules, exhausted, ruleName } from './covering-rules';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio/istio issue 23526 */
export const allowEmptiedByDeny: Lint = {
  name: 'allow-emptied-by-deny',
  summary: 'DENY rules leave nothing of what a rule allows.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    const denied = new CoveringRules(set, 'DENY');
    for (const rule of set.rulesOf('ALLOW')) {
      const around = denied.around(rule, new Set());
      if (denied.isExhausted) return yield* exhausted(rule);
      if (!around) continue;
      yield {
        resource: rule.policy,
        path: rule.path,
        message: `allows nothing: ${around.map(ruleName).join(' and ')} denies all that it matches`,
        hint: 'narrow the DENY, which comes first, or remove the rule',
      };
    }
  },
};
