import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio/istio issue 47027 */
export const unknownTrustDomain: Lint = {
  name: 'unknown-trust-domain',
  summary: 'A principal is of a trust domain that is neither ours nor an alias.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    const { trustDomain, trustDomainAliases, foreignTrustDomains } = set.mesh;
    // Istio takes cluster.local for our own.
    const known = [trustDomain, ...trustDomainAliases, ...foreignTrustDomains, 'cluster.local'];
    for (const rule of set.rulesOf('ALLOW', 'DENY', 'AUDIT'))
      for (const { attribute, values, path } of rule.fields) {
        const isPrincipal = attribute === 'source.principal';
        if (!isPrincipal && attribute !== 'source.trustDomain') continue;
        for (const [index, value] of values.entries()) {
          const domain = isPrincipal ? domainOf(value) : value;
          if (domain === undefined || known.some((each) => matchesDomain(domain, each))) continue;
          yield {
            resource: rule.policy,
            path: [...path, index],
            message: `is of trust domain ${domain}, whose peers the handshake refuses: it is neither ${trustDomain} nor an alias`,
            hint: 'add it to trustDomainAliases of --mesh-config, or correct the name',
          };
        }
      }
  },
};

/** The trust domain of `TD/ns/NS/sa/SA`; undefined where the value has none of its own. */
function domainOf(principal: string): string | undefined {
  const [domain = '', ...rest] = principal.split('/');
  return rest.length === 0 || domain === '' || domain.endsWith(':') ? undefined : domain;
}

function matchesDomain(pattern: string, domain: string): boolean {
  const [before = '', after] = pattern.split('*');
  if (after === undefined) return pattern === domain;
  return (
    domain.length >= before.length + after.length &&
    domain.startsWith(before) &&
    domain.endsWith(after)
  );
}
