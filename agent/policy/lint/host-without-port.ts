import { actionOf } from '../authz/rbac';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio/istio issue 44080 */
export const hostWithoutPort: Lint = {
  name: 'host-without-port',
  summary: 'A host without a port does not match a Host header that has one.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    for (const rule of set.rulesOf('ALLOW', 'DENY', 'AUDIT', 'CUSTOM'))
      for (const { attribute, isNegative, values, path } of rule.fields) {
        if (!HOSTS.has(attribute.toLowerCase())) continue;
        const index = values.findIndex((host) => isWithoutPort(host, values));
        if (index < 0) continue;
        const host = values[index]!;
        const isBypass = (actionOf(rule.policy.spec) === 'ALLOW') === isNegative;
        yield {
          resource: rule.policy,
          path: [...path, index],
          message: `${host} does not match Host: ${host.replace('*', 'x')}:443${isBypass ? ', which passes by the rule' : ''}`,
          hint: host.startsWith('*') ? `add ${host}:PORT for each port` : `add ${host}:*`,
        };
      }
  },
};

const HOSTS = new Set(['request.host', 'request.headers[:authority]', 'request.headers[host]']);

function isWithoutPort(host: string, values: readonly string[]): boolean {
  if (host.endsWith('*') || /:\d+$/.test(host)) return false;
  // `a.example:*`, or any of its ports.
  return !values.some((other) => other.toLowerCase().startsWith(`${host.toLowerCase()}:`));
}
