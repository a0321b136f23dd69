import { actionOf } from '../authz/rbac';
import { objectsOf } from '../resources/fields';
import type { Resource } from '../resources/resource';
import { hasTarget } from '../select';
import { isOfToken } from './fields';
import type { Lint, LintFinding } from './lint';
import type { LintedSet, Meeting } from './linted-set';

/** @see istio/istio issues 26559, 43982 and 24371 */
export const jwtNotRequired: Lint = {
  name: 'jwt-not-required',
  summary: 'A RequestAuthentication alone lets requests without a token pass.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    const inForce = new Set(set.authorization);
    for (const policy of set.index.all('RequestAuthentication')) {
      if (objectsOf(policy.spec.jwtRules).length === 0 || hasTarget(policy.spec)) continue;
      const isOpen = (workload: Meeting) =>
        !set
          .mayApply('AuthorizationPolicy', workload)
          .some((each) => inForce.has(each) && requiresToken(set, each));
      if (!set.meetings(policy).some(isOpen)) continue;
      yield {
        resource: policy,
        path: ['spec', 'jwtRules'],
        message: 'refuse wrong tokens only: a request without one passes',
        hint: 'add an AuthorizationPolicy, action DENY, with notRequestPrincipals: ["*"]; a request without a token then gets 403, not 401',
      };
    }
  },
};

/** An ALLOW by tokens, a DENY of what has none, or no access at all. */
function requiresToken(set: LintedSet, policy: Resource): boolean {
  const action = actionOf(policy.spec);
  if (action !== 'ALLOW' && action !== 'DENY') return false;
  const rules = set.rules(policy);
  if (action === 'ALLOW' && rules.length === 0) return true;
  return rules.some((rule) =>
    rule.fields.some((each) => isOfToken(each) && each.isNegative === (action === 'DENY')),
  );
}
