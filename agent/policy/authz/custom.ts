import { objectOf, textOf } from '../resources/fields';
import type { JsonObject } from '../resources/resource';
import { beginsWith, metadataMatch, textValue } from './matchers';
import type { AuthzOptions } from './providers';
import {
  type AuthorizationPolicies,
  type BuiltRules,
  type ChainKind,
  rbacFilterOf,
  rbacOf,
  rulesOf,
} from './rbac';

/** Names of rules and the verdict in metadata begin so; behind it comes the provider. */
const PREFIX = 'istio-ext-authz';
const VERDICT = 'istio_ext_authz_shadow_effective_policy_id';

/**
 * CUSTOM: an RBAC filter that only records which rule matches, and an ext_authz filter that asks the
 * provider where one did. A provider that is unknown or invalid denies what its rules match, and so
 * do several, of which istiod asks none either. On connections an HTTP provider is not asked.
 *
 * @see istio pilot/pkg/security/authz/builder
 */
export function customFilters(
  policies: AuthorizationPolicies,
  kind: ChainKind,
  options: AuthzOptions,
): JsonObject[] {
  const names = [...new Set(policies.map(({ spec }) => providerOf(spec)))].sort();
  const areTooMany = names.length > 1;
  return names.flatMap((name) => {
    const prefix = name === '' ? `${PREFIX}-` : `${PREFIX}-${name}-`;
    const own = policies.filter(({ spec }) => providerOf(spec) === name);
    const rules = rulesOf(own, 'DENY', kind, options, prefix);
    const provider = options.providers.get(name);
    if (areTooMany || !provider || provider.problem !== undefined)
      return [denyInstead(rules, kind)];
    const extAuthz = kind.http ? provider.http : provider.tcp;
    return extAuthz ? [record(rules, kind), ask(name, extAuthz, kind)] : [];
  });
}

function providerOf(spec: JsonObject): string {
  return textOf(objectOf(spec.provider).name) ?? '';
}

function record({ enforced, dryRun }: BuiltRules, kind: ChainKind): JsonObject {
  return rbacFilterOf(kind, {
    rules: dryRun && 'policies' in dryRun ? dryRun : undefined,
    shadowRules: enforced ?? rbacOf('DENY', {}),
    shadowRulesStatPrefix: 'istio_ext_authz_',
  });
}

function ask(provider: string, extAuthz: JsonObject, kind: ChainKind): JsonObject {
  const match = textValue(beginsWith(`${PREFIX}-${provider}`));
  return {
    name: kind.extAuthzName,
    typedConfig: {
      ...extAuthz,
      filterEnabledMetadata: metadataMatch(kind.rbacName, [VERDICT], match),
    },
  };
}

function denyInstead({ enforced }: BuiltRules, kind: ChainKind): JsonObject {
  const policies = Object.entries(objectOf(enforced?.policies)).map(
    ([name, policy]) => [`${name}-deny-due-to-bad-CUSTOM-action`, policy] as const,
  );
  return rbacFilterOf(kind, { rules: rbacOf('DENY', Object.fromEntries(policies)) });
}
