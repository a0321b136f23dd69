import { objectOf, objectsOf, textOf, withoutDefaults } from '../resources/fields';
import type { JsonObject, Resource } from '../resources/resource';
import { compileRule, type RbacAction } from './rule';
import type { TrustDomains } from './trust-domains';

/** The policies that select a workload, oldest first within each namespace. */
export type AuthorizationPolicies = readonly Resource[];

/** The kind of chain, with the names that Envoy has for its filters. */
export const HTTP = {
  http: true,
  rbacName: 'envoy.filters.http.rbac',
  rbacType: 'type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC',
  extAuthzName: 'envoy.filters.http.ext_authz',
  statPrefix: undefined,
} as const;
export const TCP = {
  http: false,
  rbacName: 'envoy.filters.network.rbac',
  rbacType: 'type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC',
  extAuthzName: 'envoy.filters.network.ext_authz',
  statPrefix: 'tcp.',
} as const;
export type ChainKind = typeof HTTP | typeof TCP;

export function actionOf(spec: JsonObject): string {
  return textOf(spec.action) ?? 'ALLOW';
}

/** Rules by their names, those in force and those of a dry run; undefined where no policy is such. */
export interface BuiltRules {
  readonly enforced: JsonObject | undefined;
  readonly dryRun: JsonObject | undefined;
}

/**
 * The rules of policies of one action as `envoy.config.rbac.v3.RBAC`. A policy without rules has
 * one that never matches.
 *
 * @param prefix  Of the rules' names, by which CUSTOM finds its provider.
 */
export function rulesOf(
  policies: AuthorizationPolicies,
  action: RbacAction,
  { http }: ChainKind,
  { trustDomains }: { readonly trustDomains: TrustDomains },
  prefix = '',
): BuiltRules {
  const built = { enforced: new Map<string, JsonObject>(), dryRun: new Map<string, JsonObject>() };
  for (const { namespace, name, spec, annotations } of policies) {
    const target = isDryRun(annotations) ? built.dryRun : built.enforced;
    const nameOf = (index: number) => `${prefix}ns[${namespace}]-policy[${name}]-rule[${index}]`;
    const rules = objectsOf(spec.rules);
    if (rules.length === 0) target.set(nameOf(0), NEVER);
    for (const [index, rule] of rules.entries()) {
      const compiled = compileRule(rule, { namespace, http, action, trustDomains });
      if (compiled) target.set(nameOf(index), compiled);
    }
  }
  const isOf = (dryRun: boolean) =>
    policies.some(({ annotations }) => isDryRun(annotations) === dryRun);
  const rbac = (rules: ReadonlyMap<string, JsonObject>) =>
    rbacOf(action, Object.fromEntries(rules));
  return {
    enforced: isOf(false) ? rbac(built.enforced) : undefined,
    dryRun: isOf(true) ? rbac(built.dryRun) : undefined,
  };
}

const NEVER: JsonObject = {
  permissions: [{ notRule: { any: true } }],
  principals: [{ notId: { any: true } }],
};

/** ALLOW is the default of the field. */
export function rbacOf(action: RbacAction, policies: JsonObject): JsonObject {
  return {
    ...(action === 'ALLOW' ? {} : { action }),
    ...(Object.keys(policies).length === 0 ? {} : { policies }),
  };
}

/** `istio.io/dry-run`, with the spellings that Go's ParseBool takes. */
export function isDryRun(annotations: Resource['annotations']): boolean {
  return ['1', 't', 'T', 'true', 'TRUE', 'True'].includes(annotations['istio.io/dry-run'] ?? '');
}

const SHADOW_PREFIX = {
  ALLOW: 'istio_dry_run_allow_',
  DENY: 'istio_dry_run_deny_',
  LOG: '',
} as const;

export function rbacFilter({ enforced, dryRun }: BuiltRules, kind: ChainKind): JsonObject {
  // As istiod: without a dry run the prefix is that of the default action.
  const action = textOf(objectOf(dryRun).action) ?? 'ALLOW';
  return rbacFilterOf(kind, {
    rules: enforced,
    shadowRules: dryRun,
    shadowRulesStatPrefix: SHADOW_PREFIX[action as RbacAction],
  });
}

export function rbacFilterOf(
  kind: ChainKind,
  fields: Parameters<typeof withoutDefaults>[0],
): JsonObject {
  return {
    name: kind.rbacName,
    typedConfig: {
      '@type': kind.rbacType,
      ...withoutDefaults({ statPrefix: kind.statPrefix, ...fields }),
    },
  };
}
