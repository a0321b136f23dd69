import { isObject, objectOf, objectsOf, textsOf } from '../resources/fields';
import type { Json, JsonObject } from '../resources/resource';
import { type Call, MATCHED, type Match, matched, missed } from './call';
import { isInRange, matchesTemplate, matchesText, matchesValue, showText } from './values';

/** What `envoy.config.rbac.v3.RBAC` makes of a call. */
export interface RbacVerdict {
  readonly action: 'ALLOW' | 'DENY' | 'LOG';
  /** The first of its policies, by name, that matched. */
  readonly matched: string | undefined;
  /** What did not match in each of the others before it. */
  readonly missed: readonly { readonly policy: string; readonly why: string }[];
  /** Whether the call may go on. */
  readonly passes: boolean;
}

/** @throws RangeError for matchers that are not known here; no verdict is guessed. */
export function evaluateRbac(rbac: JsonObject, call: Call): RbacVerdict {
  const action = actionOf(rbac.action);
  const others: { policy: string; why: string }[] = [];
  let found: string | undefined;
  for (const [name, policy] of Object.entries(objectOf(rbac.policies)).sort(byName)) {
    const match = matchPolicy(objectOf(policy), call);
    if (match.ok) {
      found = name;
      break;
    }
    others.push({ policy: name, why: match.why });
  }
  const passes =
    action === 'LOG' || (action === 'ALLOW' ? found !== undefined : found === undefined);
  return { action, matched: found, missed: others, passes };
}

function actionOf(action: Json | undefined): RbacVerdict['action'] {
  if (action === undefined || action === 'ALLOW') return 'ALLOW';
  if (action === 'DENY' || action === 'LOG') return action;
  throw new RangeError(`no such RBAC action: ${String(action)}`);
}

/** As Envoy's ordered map has them: by bytes, which names of resources, being ASCII, are. */
function byName([one]: readonly [string, unknown], [other]: readonly [string, unknown]): number {
  return one < other ? -1 : 1;
}

function matchPolicy(policy: JsonObject, call: Call): Match {
  if (policy.condition !== undefined || policy.checkedCondition !== undefined)
    throw new RangeError('conditions in CEL cannot be evaluated here');
  const permission = any(objectsOf(policy.permissions), (each) => matchPermission(each, call));
  if (!permission.ok) return permission;
  return any(objectsOf(policy.principals), (each) => matchPrincipal(each, call));
}

function any(list: readonly JsonObject[], match: (each: JsonObject) => Match): Match {
  const reasons: string[] = [];
  for (const each of list) {
    const result = match(each);
    if (result.ok) return result;
    reasons.push(result.why);
  }
  return missed([...new Set(reasons)].join(' and '));
}

function all(list: readonly JsonObject[], match: (each: JsonObject) => Match): Match {
  for (const each of list) {
    const result = match(each);
    if (!result.ok) return result;
  }
  return MATCHED;
}

function not(inner: Json | undefined, match: (each: JsonObject) => Match): Match {
  const negated = objectOf(inner);
  return matched(!match(negated).ok, () => `not ${show(negated)}`);
}

function matchPermission(rule: JsonObject, call: Call): Match {
  const inner = (each: JsonObject) => matchPermission(each, call);
  if (rule.any !== undefined) return matched(rule.any === true, () => 'it never matches');
  if (isObject(rule.andRules)) return all(objectsOf(rule.andRules.rules), inner);
  if (isObject(rule.orRules)) return any(objectsOf(rule.orRules.rules), inner);
  if (rule.notRule !== undefined) return not(rule.notRule, inner);
  if (isObject(rule.uriTemplate)) {
    const template = String(objectOf(rule.uriTemplate.typedConfig).pathTemplate);
    const path = pathOf(call);
    const ok = path !== undefined && matchesTemplate(template, path);
    return matched(ok, () => `the path is ${shown(path)}, not ${template}`);
  }
  if (rule.destinationPort !== undefined)
    return matched(
      call.port === rule.destinationPort,
      () => `the port is ${call.port}, not ${String(rule.destinationPort)}`,
    );
  if (isObject(rule.destinationIp))
    return address('the destination', rule.destinationIp, call.destinationIp);
  if (isObject(rule.requestedServerName)) {
    const matcher = rule.requestedServerName;
    return matched(
      matchesText(matcher, call.serverName),
      () => `the server name is ${shown(call.serverName)}, not ${showText(matcher)}`,
    );
  }
  return matchEither(rule, call);
}

function matchPrincipal(id: JsonObject, call: Call): Match {
  const inner = (each: JsonObject) => matchPrincipal(each, call);
  if (id.any !== undefined) return matched(id.any === true, () => 'it never matches');
  if (isObject(id.andIds)) return all(objectsOf(id.andIds.ids), inner);
  if (isObject(id.orIds)) return any(objectsOf(id.orIds.ids), inner);
  if (id.notId !== undefined) return not(id.notId, inner);
  if (isObject(id.authenticated)) {
    const { principalName } = id.authenticated;
    const ok =
      call.peer !== undefined &&
      (!isObject(principalName) || matchesText(principalName, call.peer));
    return matched(
      ok,
      () =>
        `the peer is ${call.peer ?? 'not authenticated'}, not ${showText(objectOf(principalName))}`,
    );
  }
  if (isObject(id.directRemoteIp)) return address('the peer', id.directRemoteIp, call.directIp);
  if (isObject(id.remoteIp)) return address('the client', id.remoteIp, call.remoteIp);
  if (isObject(id.sourceIp)) return address('the peer', id.sourceIp, call.directIp);
  return matchEither(id, call);
}

/** What permissions and principals have in common. */
function matchEither(rule: JsonObject, call: Call): Match {
  if (isObject(rule.header)) return matchHeader(rule.header, call);
  if (isObject(rule.urlPath)) {
    const matcher = objectOf(rule.urlPath.path);
    const path = pathOf(call);
    const ok = path !== undefined && matchesText(matcher, path);
    return matched(ok, () => `the path is ${shown(path)}, not ${showText(matcher)}`);
  }
  const metadata = rule.metadata ?? objectOf(rule.sourcedMetadata).metadataMatcher;
  if (isObject(metadata)) return matchMetadata(metadata, call);
  throw new RangeError(`no such rule: ${Object.keys(rule).join(', ')}`);
}

/** @see envoy.config.route.v3.HeaderMatcher */
function matchHeader(header: JsonObject, { request }: Call): Match {
  const name = String(header.name).toLowerCase();
  const values = request?.headers.get(name) ?? [];
  const label = HEADER_LABELS.get(name) ?? `header ${name}`;
  const result = (): Match => {
    if (header.presentMatch !== undefined)
      return matched(values.length > 0 === header.presentMatch, () => `${label} is absent`);
    if (!isObject(header.stringMatch))
      throw new RangeError(`no such header matcher: ${Object.keys(header).join(', ')}`);
    const matcher = header.stringMatch;
    const isEmpty = values.length === 0 && header.treatMissingHeaderAsEmpty === true;
    // Of several any one may match; they are not joined.
    const ok = (isEmpty ? [''] : values).some((each) => matchesText(matcher, each));
    return matched(ok, () => `${label} is ${shownAll(values)}, not ${showText(matcher)}`);
  };
  if (header.invertMatch !== true) return result();
  return matched(!result().ok, () => `${label} is ${shownAll(values)}`);
}

const HEADER_LABELS = new Map([
  [':method', 'the method'],
  [':authority', 'the host'],
  [':path', 'the path'],
]);

const JWT_FILTER = 'envoy.filters.http.jwt_authn';

/** Dynamic metadata: what a token says is all that is known of it here. */
function matchMetadata(metadata: JsonObject, { request }: Call): Match {
  const keys = objectsOf(metadata.path).map(({ key }) => String(key));
  let value: Json | undefined =
    metadata.filter === JWT_FILTER && request?.claims ? { payload: request.claims } : undefined;
  for (const key of keys)
    value = isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined;
  const ok = matchesValue(objectOf(metadata.value), value) !== (metadata.invert === true);
  const what =
    metadata.filter === JWT_FILTER
      ? `claim ${keys.slice(1).join('.')}`
      : `metadata ${String(metadata.filter)} ${keys.join('.')}`;
  return matched(ok, () => `${what} is ${shown(value)}`);
}

function address(whose: string, range: JsonObject, given: string): Match {
  return matched(
    isInRange(range, given),
    () =>
      `${whose} is ${given}, not in ${String(range.addressPrefix)}/${String(range.prefixLen ?? 0)}`,
  );
}

/** Without query and fragment. */
function pathOf({ request }: Call): string | undefined {
  return request?.headers.get(':path')?.[0]?.replace(/[?#].*$/s, '');
}

const shownAll = (values: readonly string[]) => values.map(shown).join(', ') || 'absent';

function shown(value: Json | undefined): string {
  return value === undefined ? 'absent' : JSON.stringify(value);
}

/** A negated matcher in short. */
function show(rule: JsonObject): string {
  const inner = objectOf(rule.orRules ?? rule.orIds ?? rule.andRules ?? rule.andIds);
  const list = objectsOf(inner.rules ?? inner.ids);
  if (list.length > 0) return list.map(show).join(', ');
  const { header, urlPath, authenticated } = rule;
  if (isObject(header)) return `${String(header.name)} ${showText(objectOf(header.stringMatch))}`;
  if (isObject(urlPath)) return showText(objectOf(urlPath.path));
  if (isObject(authenticated)) return showText(objectOf(authenticated.principalName));
  return textsOf([JSON.stringify(rule)]).join('');
}
