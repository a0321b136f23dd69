import type { JsonObject } from '../resources/resource';
import { customFilters } from './custom';
import type { AuthzOptions } from './providers';
import { type AuthorizationPolicies, actionOf, type ChainKind, rbacFilter, rulesOf } from './rbac';
import type { RbacAction } from './rule';

/** What guards the requests of an HTTP chain, or the connections of a TCP chain. */
export interface Guards {
  /** CUSTOM: before tokens are read. */
  readonly custom: readonly JsonObject[];
  /** AUDIT, DENY, ALLOW: behind them. */
  readonly rbac: readonly JsonObject[];
}

const STAGES: readonly (readonly [policy: string, action: RbacAction])[] = [
  ['AUDIT', 'LOG'],
  ['DENY', 'DENY'],
  ['ALLOW', 'ALLOW'],
];

/** The filters of the policies, in the order in which Envoy runs them; none where there is no policy. */
export function buildGuards(
  policies: AuthorizationPolicies,
  kind: ChainKind,
  options: AuthzOptions,
): Guards {
  const of = (action: string) => policies.filter(({ spec }) => actionOf(spec) === action);
  const rbac = STAGES.flatMap(([policy, action]) => {
    const some = of(policy);
    return some.length === 0 ? [] : [rbacFilter(rulesOf(some, action, kind, options), kind)];
  });
  return { custom: customFilters(of('CUSTOM'), kind, options), rbac };
}
