import { actionOf } from '../authz/rbac';
import { objectOf, textOf } from '../resources/fields';
import type { Resource } from '../resources/resource';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio/istio issue 34041 */
export const severalProviders: Lint = {
  name: 'several-providers',
  summary:
    'CUSTOM policies of several providers apply to one workload, and istiod denies what they match.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    const custom = new Set(customPolicies(set));
    for (const policy of custom) {
      const own = providerOf(policy);
      const other = set
        .meetings(policy)
        .flatMap((workload) => set.mayApply('AuthorizationPolicy', workload))
        .find((each) => custom.has(each) && providerOf(each) !== own);
      if (!other) continue;
      yield {
        resource: policy,
        path: ['spec', 'provider', 'name'],
        message: `is another provider than that of ${other.namespace}/${other.name}: of several for one workload istiod asks none and denies what their rules match`,
        hint: 'use one provider for a workload',
      };
    }
  },
};

const providerOf = ({ spec }: Resource) => textOf(objectOf(spec.provider).name) ?? '';

/** The CUSTOM policies that are in force. */
export function customPolicies(set: LintedSet): readonly Resource[] {
  return set.authorization.filter(({ spec }) => actionOf(spec) === 'CUSTOM');
}
