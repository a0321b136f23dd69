import { objectsOf } from '../resources/fields';
import { type AuthzRule, isOfToken } from './fields';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio/istio issues 35973, 35941, 51173 and 49716 */
export const requestPrincipalWithoutJwt: Lint = {
  name: 'request-principal-without-jwt',
  summary: 'A rule goes by tokens where no RequestAuthentication reads them.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    for (const rule of set.rulesOf('ALLOW', 'DENY', 'AUDIT', 'CUSTOM')) {
      const field = rule.fields.find(isOfToken);
      if (!field || everyTokenIsRead(set, rule)) continue;
      yield {
        resource: rule.policy,
        path: field.path,
        message: field.isNegative
          ? 'matches every request: no RequestAuthentication of the workload reads tokens'
          : 'matches no request: no RequestAuthentication of the workload reads tokens',
        hint: 'add a RequestAuthentication with jwtRules for the same workloads',
      };
    }
  },
};

function everyTokenIsRead(set: LintedSet, { policy }: AuthzRule): boolean {
  return set
    .meetings(policy)
    .every((workload) =>
      set
        .mayApply('RequestAuthentication', workload)
        .some(({ spec }) => objectsOf(spec.jwtRules).length > 0),
    );
}
