import { readProviders } from '../authz/providers';
import { objectOf, textOf } from '../resources/fields';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';
import { customPolicies } from './several-providers';

/** @see istio/istio issues 35758, 57933 and 40944 */
export const unknownProvider: Lint = {
  name: 'unknown-provider',
  summary:
    'The provider of a CUSTOM policy is unknown or invalid, and all that it matches is denied.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    const providers = readProviders(set.mesh.extensionProviders, set.index.services);
    for (const policy of customPolicies(set)) {
      const name = textOf(objectOf(policy.spec.provider).name) ?? '';
      const provider = providers.get(name);
      if (provider && provider.problem === undefined) continue;
      const known = [...providers.keys()].join(', ');
      yield {
        resource: policy,
        path: ['spec', 'provider', 'name'],
        message: provider
          ? `denies what its rules match: provider ${name} is invalid, ${provider.problem}`
          : `denies what its rules match: MeshConfig has no provider ${name}`,
        hint: provider
          ? 'mend it in extensionProviders of --mesh-config'
          : `add it to extensionProviders of --mesh-config${known === '' ? '' : `, or use one of ${known}`}`,
      };
    }
  },
};
