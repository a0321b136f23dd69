import type { Resource } from '../resources/resource';
import { matchLabels, selects } from '../workload';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio/istio issue 48036 */
export const peerAuthenticationShadowed: Lint = {
  name: 'peer-authentication-shadowed',
  summary: 'Of two PeerAuthentications of one rank that match a workload only one counts.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    const seen = new Map<string, Resource[]>();
    // The index has them in the order in which they win.
    for (const policy of set.index.all('PeerAuthentication')) {
      const isWide = Object.keys(matchLabels(policy.spec)).length === 0;
      if (!isWide && policy.namespace === set.mesh.rootNamespace) continue;
      const key = `${policy.namespace} ${isWide}`;
      const before = seen.get(key) ?? [];
      seen.set(key, [...before, policy]);
      const winner = isWide ? before[0] : before.find((each) => bothMatch(set, each, policy));
      if (!winner) continue;
      yield {
        resource: policy,
        path: isWide ? ['spec'] : ['spec', 'selector'],
        message: `is not what counts where ${winner.namespace}/${winner.name} matches too, which is older or comes first by name`,
        hint: `merge it with ${winner.namespace}/${winner.name} (${winner.source.file}:${winner.source.line})`,
      };
    }
  },
};

/** One selector within the other, or a workload that has the labels of both. */
function bothMatch(set: LintedSet, one: Resource, other: Resource): boolean {
  const [first, second] = [matchLabels(one.spec), matchLabels(other.spec)];
  const isWithin = Object.entries(first).every(([name, value]) => second[name] === value);
  const isAround = Object.entries(second).every(([name, value]) => first[name] === value);
  return (
    isWithin ||
    isAround ||
    set
      .meetings(other)
      .some(({ isKnown, labels }) => isKnown && selects(first, labels) && selects(second, labels))
  );
}
