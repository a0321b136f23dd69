import { isObject, notName, objectsOf, textsOf } from '../resources/fields';
import type { Json, JsonObject } from '../resources/resource';
import * as match from './conditions';
import type { TrustDomains } from './trust-domains';

/** The three that Envoy evaluates; CUSTOM is compiled as DENY whose verdict is only recorded. */
export type RbacAction = 'ALLOW' | 'DENY' | 'LOG';

export interface RuleOptions extends match.RuleContext {
  readonly action: RbacAction;
  readonly trustDomains: TrustDomains;
}

/**
 * One rule of an AuthorizationPolicy as an `envoy.config.rbac.v3.Policy`: any of its `to` and any of
 * its `from`, each with all of its `when`.
 *
 * What cannot be matched on a connection makes the rule void where it allows, and is left out where
 * it denies or records: fewer are allowed, more are denied.
 *
 * @param rule  As `istio.security.v1beta1.Rule`, valid.
 * @returns     undefined for a void rule, and for one with an unknown attribute.
 */
export function compileRule(rule: JsonObject, options: RuleOptions): JsonObject | undefined {
  const when = conditionsOf(rule, options.trustDomains);
  if (!when) return undefined;
  const permissions = alternatives(operationsOf(rule, options), when.permission).map((all) =>
    conjunction(all, options, PERMISSION),
  );
  const principals = alternatives(sourcesOf(rule, options), when.principal).map((all) =>
    conjunction(all, options, PRINCIPAL),
  );
  if (!areWhole(permissions) || !areWhole(principals)) return undefined;
  return { permissions, principals };
}

interface Predicate {
  readonly matching: match.Matching;
  readonly values: readonly string[];
  readonly notValues: readonly string[];
}

/** In the order in which istiod writes them. */
const OPERATION: readonly Field[] = [
  ['hosts', match.hosts],
  ['methods', match.methods],
  ['paths', match.paths],
  ['ports', match.ports],
];
const SOURCE: readonly Field[] = [
  ['principals', match.principals],
  ['requestPrincipals', match.requestPrincipals],
  ['serviceAccounts', match.serviceAccounts],
  ['trustDomains', match.trustDomains],
  ['namespaces', match.namespaces],
  ['remoteIpBlocks', match.remoteIpBlocks],
  ['ipBlocks', match.ipBlocks],
];
type Field = readonly [name: string, matching: match.Matching];

const operationsOf = (rule: JsonObject, { trustDomains }: RuleOptions) =>
  objectsOf(rule.to).map(({ operation }) => predicatesOf(operation, OPERATION, trustDomains));

const sourcesOf = (rule: JsonObject, { trustDomains }: RuleOptions) =>
  objectsOf(rule.from).map(({ source }) => predicatesOf(source, SOURCE, trustDomains));

function predicatesOf(
  fields: Json | undefined,
  order: readonly Field[],
  trustDomains: TrustDomains,
): Predicate[] {
  if (!isObject(fields)) return [];
  const all = order.map(([name, matching]) => ({
    matching,
    values: expand(matching, textsOf(fields[name]), trustDomains),
    notValues: expand(matching, textsOf(fields[notName(name)]), trustDomains),
  }));
  return all.filter(saysSomething);
}

/** Each alternative with the conditions; where there is none, the conditions alone. */
function alternatives(
  list: readonly (readonly Predicate[])[],
  conditions: readonly Predicate[],
): (readonly Predicate[])[] {
  return list.length === 0 ? [conditions] : list.map((own) => [...own, ...conditions]);
}

function conditionsOf(rule: JsonObject, trustDomains: TrustDomains) {
  const found = { permission: [] as Predicate[], principal: [] as Predicate[] };
  const rounds = Math.max(1, objectsOf(rule.from).length);
  for (const condition of objectsOf(rule.when)) {
    const attribute = match.attributeOf(String(condition.key));
    if (!attribute) return undefined;
    const { matching } = attribute;
    const predicate = {
      matching,
      values: expand(matching, textsOf(condition.values), trustDomains, rounds),
      notValues: expand(matching, textsOf(condition.notValues), trustDomains, rounds),
    };
    if (saysSomething(predicate)) found[attribute.of].push(predicate);
  }
  return found;
}

const saysSomething = ({ values, notValues }: Predicate) =>
  values.length > 0 || notValues.length > 0;

/** How a message of Envoy says and, or, not. */
interface Logic {
  and(list: readonly JsonObject[]): JsonObject;
  or(list: readonly JsonObject[]): JsonObject;
  not(one: JsonObject): JsonObject;
}

const PERMISSION: Logic = {
  and: (rules) => ({ andRules: { rules } }),
  or: (rules) => ({ orRules: { rules } }),
  not: (notRule) => ({ notRule }),
};
const PRINCIPAL: Logic = {
  and: (ids) => ({ andIds: { ids } }),
  or: (ids) => ({ orIds: { ids } }),
  not: (notId) => ({ notId }),
};

function conjunction(
  predicates: readonly Predicate[],
  options: RuleOptions,
  logic: Logic,
): JsonObject | undefined {
  const parts: JsonObject[] = [];
  for (const { matching, values, notValues } of predicates) {
    const [wanted, unwanted] = [
      disjunction(matching, values, options, logic),
      disjunction(matching, notValues, options, logic),
    ];
    if (wanted === 'void' || unwanted === 'void') return undefined;
    if (wanted) parts.push(wanted);
    if (unwanted) parts.push(logic.not(unwanted));
  }
  return logic.and(parts.length === 0 ? [{ any: true }] : parts);
}

/** Undefined where nothing is left of the values. */
function disjunction(
  matching: match.Matching,
  values: readonly string[],
  options: RuleOptions,
  logic: Logic,
): JsonObject | 'void' | undefined {
  if (values.length === 0) return undefined;
  const isAllow = options.action === 'ALLOW';
  if ('all' in matching) return matching.all(values, options) ?? (isAllow ? 'void' : undefined);
  const found: JsonObject[] = [];
  for (const value of values) {
    const one = matching.each(value, options);
    if (one) found.push(one);
    else if (isAllow) return 'void';
  }
  return found.length === 0 ? undefined : logic.or(found);
}

/**
 * Values with the aliases of our trust domain.
 *
 * @param rounds  istiod expands the principals of a condition once for each source of the rule, so
 *                that each stands there many times. It means the same, and is written so here as
 *                long as it is short.
 */
function expand(
  matching: match.Matching,
  values: readonly string[],
  trustDomains: TrustDomains,
  rounds = 1,
): readonly string[] {
  if (matching === match.trustDomains) return trustDomains.expandNames(values);
  if (matching !== match.principals) return values;
  let expanded = trustDomains.expandPrincipals(values);
  for (let round = 1; round < rounds && expanded.length < MANY; round += 1)
    expanded = trustDomains.expandPrincipals(expanded);
  return expanded;
}

const MANY = 1_000;

function areWhole(list: readonly (JsonObject | undefined)[]): list is readonly JsonObject[] {
  return !list.includes(undefined);
}
