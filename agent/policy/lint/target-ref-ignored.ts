import { hasTarget } from '../select';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio pilot/pkg/model/policyattachment.go */
export const targetRefIgnored: Lint = {
  name: 'target-ref-ignored',
  summary: 'A policy with a target is for gateways, and guards no workload.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    for (const kind of ['AuthorizationPolicy', 'RequestAuthentication'] as const)
      for (const policy of set.index.all(kind)) {
        if (!hasTarget(policy.spec)) continue;
        const field = 'targetRef' in policy.spec ? 'targetRef' : 'targetRefs';
        yield {
          resource: policy,
          path: ['spec', field],
          message: 'makes the policy one for gateways: it guards no workload',
          hint: 'select workloads by spec.selector.matchLabels',
        };
      }
  },
};
