import { matchLabels } from '../workload';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio pilot/pkg/model/authentication.go */
export const rootSelectorIgnored: Lint = {
  name: 'root-selector-ignored',
  summary: 'A PeerAuthentication with a selector in the root namespace has no effect.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    const { rootNamespace } = set.mesh;
    for (const policy of set.index.of('PeerAuthentication', rootNamespace)) {
      if (Object.keys(matchLabels(policy.spec)).length === 0) continue;
      yield {
        resource: policy,
        path: ['spec', 'selector'],
        message: `makes the policy void: in the root namespace ${rootNamespace} only one without a selector counts`,
        hint: 'move it to the namespace of the workload, or remove the selector',
      };
    }
  },
};
