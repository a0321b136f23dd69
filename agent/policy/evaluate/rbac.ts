import { objectOf, objectsOf } from '../resources/fields';
import type { Json, JsonObject } from '../resources/resource';
import { isInRange } from './address';
import {
  type Headers,
  matchesHeader,
  matchesMetadata,
  matchesText,
  oneOf,
  uninterpretable,
} from './match';
import { matchesTemplate, withoutQuery } from './path';

/** What the rules of one filter can see. */
export interface Facts {
  /** Names of the peer's certificate, URIs first; undefined on a connection without TLS. */
  readonly peer: readonly string[] | undefined;
  readonly localIp: string | undefined;
  readonly localPort: number;
  readonly directIp: string | undefined;
  readonly remoteIp: string | undefined;
  readonly serverName: string;
  /** With pseudo-headers; empty on a connection. */
  readonly headers: Headers;
  /** By the name of the filter that found it out. */
  readonly metadata: JsonObject;
}

/** How one policy of a filter judged. */
export interface PolicyResult {
  readonly name: string;
  readonly matched: boolean;
  /** Why it did not match. */
  readonly failed: string | undefined;
}

/** How a filter's rules, or its shadow rules, judged. */
export interface EngineResult {
  readonly action: 'ALLOW' | 'DENY' | 'LOG';
  readonly allowed: boolean;
  /** The first policy that matched, in the order of names. */
  readonly decidedBy: string | undefined;
  readonly policies: readonly PolicyResult[];
}

/**
 * Judges by `envoy.config.rbac.v3.RBAC`.
 *
 * @throws AgentError ERR_POLICY where a condition is of a kind that only Envoy knows.
 */
export function judge(rbac: JsonObject, facts: Facts): EngineResult {
  const action = (rbac.action ?? 'ALLOW') as EngineResult['action'];
  if ('matcher' in rbac) throw uninterpretable('rules in the form of a matcher tree');
  const policies: PolicyResult[] = [];
  let decidedBy: string | undefined;
  for (const [name, policy] of Object.entries(objectOf(rbac.policies)).sort(byBytes)) {
    const failed = failureOf(objectOf(policy), facts);
    policies.push({ name, matched: failed === undefined, failed });
    if (failed === undefined) decidedBy ??= name;
  }
  const matched = decidedBy !== undefined;
  const allowed = action === 'LOG' || matched === (action === 'ALLOW');
  return { action, allowed, decidedBy, policies };
}

function byBytes([one]: [string, Json], [other]: [string, Json]): number {
  return Buffer.compare(Buffer.from(one), Buffer.from(other));
}

/** Undefined where it matches; else the condition that did not. */
function failureOf(policy: JsonObject, facts: Facts): string | undefined {
  if ('condition' in policy || 'checkedCondition' in policy)
    throw uninterpretable('a policy with a CEL condition');
  const of = (list: Json | undefined) => {
    const all = objectsOf(list);
    if (all.some((each) => matches(each, facts))) return undefined;
    return all.length === 1 ? whyNot(all[0]!, facts) : `none of ${all.map(describe).join(' or ')}`;
  };
  return of(policy.permissions) ?? of(policy.principals);
}

/** The innermost condition of a conjunction that fails. */
function whyNot(rule: JsonObject, facts: Facts): string {
  const [kind, value] = oneOf(rule, 'a rule');
  if (kind === 'andRules' || kind === 'andIds') {
    const failing = membersOf(value).find((each) => !matches(each, facts));
    return failing ? whyNot(failing, facts) : describe(rule);
  }
  const members = kind === 'orRules' || kind === 'orIds' ? membersOf(value) : [];
  return members.length === 1 ? whyNot(members[0]!, facts) : describe(rule);
}

function membersOf(value: Json): readonly JsonObject[] {
  const { rules, ids } = objectOf(value);
  return objectsOf(rules ?? ids);
}

/** A `Permission` or a `Principal`. */
function matches(rule: JsonObject, facts: Facts): boolean {
  const [kind, value] = oneOf(rule, 'a rule');
  const fields = objectOf(value);
  switch (kind) {
    case 'andRules':
    case 'andIds':
      return membersOf(value).every((each) => matches(each, facts));
    case 'orRules':
    case 'orIds':
      return membersOf(value).some((each) => matches(each, facts));
    case 'notRule':
    case 'notId':
      return !matches(fields, facts);
    case 'any':
      return true;
    case 'header':
      return matchesHeader(fields, facts.headers);
    case 'urlPath':
      return matchesPath(facts, (path) => matchesText(objectOf(fields.path), withoutQuery(path)));
    case 'uriTemplate': {
      const { pathTemplate } = objectOf(fields.typedConfig);
      if (pathTemplate === undefined) throw uninterpretable('a path matcher of another extension');
      return matchesPath(facts, (path) => matchesTemplate(String(pathTemplate), path));
    }
    case 'destinationIp':
      return isInRange(facts.localIp, fields);
    case 'destinationPort':
      return facts.localPort === value;
    case 'destinationPortRange':
      return (
        facts.localPort >= Number(fields.start ?? 0) && facts.localPort < Number(fields.end ?? 0)
      );
    case 'requestedServerName':
      return matchesText(fields, facts.serverName);
    case 'metadata':
      return matchesMetadata(fields, facts.metadata);
    case 'sourcedMetadata':
      if (fields.metadataSource === 'ROUTE') throw uninterpretable('metadata of routes');
      return matchesMetadata(objectOf(fields.metadataMatcher), facts.metadata);
    case 'authenticated': {
      if (!facts.peer) return false;
      const { principalName } = fields;
      if (principalName === undefined) return true;
      // Envoy tries the subject last, which an SVID leaves empty.
      return [...facts.peer, ''].some((name) => matchesText(objectOf(principalName), name));
    }
    case 'directRemoteIp':
    case 'sourceIp':
      return isInRange(facts.directIp, fields);
    case 'remoteIp':
      return isInRange(facts.remoteIp, fields);
    default:
      throw uninterpretable(`a rule with ${kind}`);
  }
}

function matchesPath(facts: Facts, matcher: (path: string) => boolean): boolean {
  const path = facts.headers.find(([name]) => name === ':path');
  return path !== undefined && matcher(path[1]);
}

/** A condition in the words of policies. */
function describe(rule: JsonObject): string {
  const [kind, value] = oneOf(rule, 'a rule');
  const fields = objectOf(value);
  const members = () => membersOf(value).map(describe);
  switch (kind) {
    case 'andRules':
    case 'andIds':
      return `(${members().join(' and ')})`;
    case 'orRules':
    case 'orIds':
      return members().length === 1 ? members()[0]! : `(${members().join(' or ')})`;
    case 'notRule':
    case 'notId':
      return `not ${describe(fields)}`;
    case 'any':
      return 'anything';
    case 'header':
      return describeHeader(fields);
    case 'urlPath':
      return `path ${describeText(objectOf(fields.path))}`;
    case 'uriTemplate':
      return `path like ${objectOf(fields.typedConfig).pathTemplate}`;
    case 'destinationPort':
      return `port ${value}`;
    case 'destinationPortRange':
      return `port ${fields.start}-${Number(fields.end) - 1}`;
    case 'requestedServerName':
      return `SNI ${describeText(fields)}`;
    case 'authenticated':
      return fields.principalName === undefined
        ? 'mutual TLS'
        : `principal ${describeText(objectOf(fields.principalName))}`;
    case 'metadata':
      return describeMetadata(fields);
    case 'sourcedMetadata':
      return describeMetadata(objectOf(fields.metadataMatcher));
    default:
      return `${ADDRESSES[kind] ?? kind} ${fields.addressPrefix}/${fields.prefixLen ?? 0}`;
  }
}

const ADDRESSES: Readonly<Record<string, string>> = {
  destinationIp: 'destination IP',
  directRemoteIp: 'source IP',
  sourceIp: 'source IP',
  remoteIp: 'remote IP',
};

function describeHeader({ name, presentMatch, invertMatch, ...rest }: JsonObject): string {
  const words: Record<string, string> = { ':authority': 'host', ':method': 'method' };
  const what = words[String(name)] ?? `header ${name}`;
  const match = rest.stringMatch === undefined ? rest : objectOf(rest.stringMatch);
  const text = presentMatch === undefined ? describeText(match) : 'present';
  return `${invertMatch === true ? 'not ' : ''}${what} ${text}`;
}

function describeText({ ignoreCase, ...pattern }: JsonObject): string {
  const [[kind, value] = ['', '']] = Object.entries(pattern);
  if (kind === 'safeRegex') return `~ ${objectOf(value).regex}`;
  return kind === 'exact' ? String(value) : `${kind} ${value}`;
}

function describeMetadata({ filter, path, value }: JsonObject): string {
  const keys = objectsOf(path).map(({ key }) => String(key));
  const what =
    filter === 'envoy.filters.http.jwt_authn'
      ? `JWT claim ${keys.slice(1).join('.')}`
      : `metadata ${filter} ${keys.join('.')}`;
  return `${what} ${describeValue(objectOf(value))}`;
}

function describeValue(matcher: JsonObject): string {
  const [[kind, value] = ['', '']] = Object.entries(matcher);
  const fields = objectOf(value);
  switch (kind) {
    case 'stringMatch':
      return describeText(fields);
    case 'listMatch':
      return `with ${describeValue(objectOf(fields.oneOf))}`;
    case 'orMatch':
      return objectsOf(fields.valueMatchers).map(describeValue).join(' or ');
    default:
      return `${kind} ${JSON.stringify(value)}`;
  }
}
