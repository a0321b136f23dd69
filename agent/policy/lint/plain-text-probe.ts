import { actionOf } from '../authz/rbac';
import { isOfPeerCertificate, leavePort } from './fields';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio/istio issue 53786 */
export const plainTextProbe: Lint = {
  name: 'plain-text-probe',
  summary: 'Probes and scrapers, which have no certificate, are refused by a STRICT port.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    yield* portsForProbes(set);
    yield* rulesForProbes(set);
  },
};

/** Ports of a Sidecar that are named after what calls them. */
function* portsForProbes(set: LintedSet): Generator<LintFinding> {
  const seen = new Set<string>();
  for (const workload of set.workloads)
    for (const { number, name, sidecar, path } of workload.ports) {
      const namespace = workload.namespace ?? set.mesh.rootNamespace;
      const isStrict = set.mode({ namespace, labels: workload.labels }, number) === 'STRICT';
      const key = JSON.stringify([sidecar.namespace, sidecar.name, number]);
      if (!PROBE_PORT.test(name) || !isStrict || seen.has(key)) continue;
      seen.add(key);
      yield {
        resource: sidecar,
        path: [...path, 'name'],
        message: `is the name of a port for probes or scrapers, and port ${number} is STRICT: they have no certificate`,
        hint: HINT,
      };
    }
}

const PROBE_PORT =
  /(^|-)(metrics|prom|prometheus|probes?|health|healthz|live|liveness|ready|readiness|stats)(-|$)/;

/** Rules that let anyone in at the paths of probes. */
function* rulesForProbes(set: LintedSet): Generator<LintFinding> {
  for (const rule of set.rulesOf('ALLOW')) {
    const fields = rule.fields;
    const paths = fields.find(
      ({ attribute, isNegative, values }) =>
        attribute === 'request.path' && !isNegative && values.some((each) => PROBE_PATH.test(each)),
    );
    if (!paths || fields.some(isOfPeerCertificate)) continue;
    const strict = set
      .meetings(rule.policy)
      .find((workload) => isStrict(set, workload, (port) => leavePort(fields, port)));
    if (!strict || actionOf(rule.policy.spec) !== 'ALLOW') continue;
    yield {
      resource: rule.policy,
      path: paths.path,
      message:
        'lets anyone in at the path of a probe, but its port is STRICT: probes and scrapers have no certificate',
      hint: HINT,
    };
  }
}

function isStrict(
  set: LintedSet,
  workload: Parameters<LintedSet['mode']>[0] & { readonly ports: readonly { number: number }[] },
  isMeant: (port: number) => boolean,
): boolean {
  if (workload.ports.length === 0) return set.modes(workload).mode === 'STRICT';
  const ports = workload.ports.filter(({ number }) => isMeant(number));
  return ports.length > 0 && ports.every(({ number }) => set.mode(workload, number) === 'STRICT');
}

const PROBE_PATH =
  /^\/(metrics|stats|healthz?|livez?|readyz?|ready|health|live|alive|ping|status)(\/|\*|$)/;
const HINT = 'let portLevelMtls of a PeerAuthentication set that port to PERMISSIVE or DISABLE';
