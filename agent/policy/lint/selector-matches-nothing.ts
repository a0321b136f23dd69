import { matchLabels } from '../workload';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio/istio issue 23526 */
export const selectorMatchesNothing: Lint = {
  name: 'selector-matches-nothing',
  summary: 'A policy selects no workload that the files or the flags tell of.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    if (set.workloads.length === 0) return;
    for (const kind of [
      'AuthorizationPolicy',
      'PeerAuthentication',
      'RequestAuthentication',
    ] as const)
      for (const policy of set.index.all(kind)) {
        if (policy.namespace === set.mesh.rootNamespace && isWide(policy.spec)) continue;
        if (set.meetings(policy).some(({ isKnown }) => isKnown)) continue;
        yield {
          resource: policy,
          path: isWide(policy.spec)
            ? ['metadata', 'namespace']
            : ['spec', 'selector', 'matchLabels'],
          message: isWide(policy.spec)
            ? `is ${policy.namespace}, of which no workload is known`
            : `select no workload that is known in ${policy.namespace}`,
          hint: 'compare it with the labels of WorkloadEntries and the workloadSelectors of Sidecars',
        };
      }
  },
};

const isWide = (spec: Parameters<typeof matchLabels>[0]) =>
  Object.keys(matchLabels(spec)).length === 0;
