import { objectOf } from '../resources/fields';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio/istio issues 49098 and 27994 */
export const portLevelMtlsWithoutPort: Lint = {
  name: 'port-level-mtls-without-port',
  summary: 'portLevelMtls names a port that no Sidecar of the workload has.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    for (const policy of set.index.all('PeerAuthentication')) {
      const ports = set.meetings(policy).flatMap((each) => each.ports.map(({ number }) => number));
      for (const port of Object.keys(objectOf(policy.spec.portLevelMtls))) {
        if (ports.includes(Number(port))) continue;
        const known = [...new Set(ports)].sort((one, other) => one - other).join(', ');
        yield {
          resource: policy,
          path: ['spec', 'portLevelMtls', port],
          message: `has no effect: no Sidecar of the workload has port ${port} in its ingress`,
          hint:
            known === ''
              ? 'add a Sidecar with the port: it is the port of the workload, not of a Service'
              : `use a port of the workload, not of a Service: ${known}`,
        };
      }
    }
  },
};
