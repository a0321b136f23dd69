import { quoteRegex } from '../resources/quote-regex';
import type { JsonObject } from '../resources/resource';
import { cidrRange } from './cidr';
import {
  ANY_TEXT,
  anyValue,
  beginsWith,
  endsWith,
  exactly,
  headerMatch,
  listValue,
  matches,
  metadataMatch,
  type StringMatcher,
  textMatch,
  textValue,
} from './matchers';

/** Who holds the rule, for what its values leave out. */
export interface RuleContext {
  /** The policy's namespace: a service account without one is of this. */
  readonly namespace: string;
  /** Whether requests are seen; else a rule is about connections. */
  readonly http: boolean;
}

/**
 * What a value of a field matches, as a `Permission` or a `Principal` of `envoy.config.rbac.v3`;
 * undefined where it cannot be matched: HTTP on a connection, or a value that is malformed.
 */
export type EachValue = (value: string, context: RuleContext) => JsonObject | undefined;
/** The same, of all values of a field together. */
export type AllValues = (values: readonly string[], context: RuleContext) => JsonObject | undefined;

export type Matching = { readonly each: EachValue } | { readonly all: AllValues };

const each = (make: EachValue): Matching => ({ each: make });
const httpEach = (make: (value: string) => JsonObject): Matching => ({
  each: (value, { http }) => (http ? make(value) : undefined),
});
const httpAll = (make: (values: readonly string[]) => JsonObject): Matching => ({
  all: (values, { http }) => (http ? make(values) : undefined),
});

const authenticated = (principalName: StringMatcher): JsonObject => ({
  authenticated: { principalName },
});

// Permissions: what is asked for.

export const hosts = httpEach((value) => ({ header: headerMatch(':authority', value, true) }));
export const methods = httpEach((value) => ({ header: headerMatch(':method', value) }));

/** The path without its query. `{*}` is one segment, `{**}` any number of them. */
export const paths = httpEach((value) =>
  /\{\*\*?\}/.test(value)
    ? {
        uriTemplate: {
          name: 'uri-template',
          typedConfig: {
            '@type': URI_TEMPLATE,
            pathTemplate: value.replaceAll('{*}', '*').replaceAll('{**}', '**'),
          },
        },
      }
    : { urlPath: { path: textMatch(value) } },
);
const URI_TEMPLATE =
  'type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig';

export const ports = each((value) => {
  const port = Number(value);
  return /^\d+$/.test(value) && port <= 65_535 ? { destinationPort: port } : undefined;
});

const destinationIp = each((value) => {
  const range = cidrRange(value);
  return range && { destinationIp: range };
});

const serverName = each((value) => ({ requestedServerName: textMatch(value) }));

/** `experimental.envoy.filters.a.b[c]`: the dynamic metadata of a filter, as a text or, `[v]`, a list. */
function filterMetadata(key: string): Matching {
  const [, filter, name] = /^experimental\.([^[]*)\[(.*?)\]?$/s.exec(key) ?? [];
  if (filter === undefined || name === undefined) return each(() => undefined);
  return {
    all: (values) => ({
      metadata: metadataMatch(
        filter,
        [name],
        anyValue(
          values.map((value) =>
            value.startsWith('[') && value.endsWith(']')
              ? listValue(textValue(textMatch(value.replace(/^[[\]]+|[[\]]+$/g, ''))))
              : textValue(textMatch(value)),
          ),
        ),
      ),
    }),
  };
}

// Principals: who asks.

export const principals = each((value) => authenticated(textMatch(value, 'spiffe://')));

export const namespaces = each((value) =>
  authenticated(matches(`.*/ns/${value.split('*').map(quoteRegex).join('.*')}/.*`)),
);

/** Pairs of keys and values may stand between the parts of an identity, and behind it. */
export const serviceAccounts = each((value, context) => {
  const [namespace, account] = value.includes('/')
    ? splitAt(value, value.indexOf('/'))
    : [context.namespace, value];
  return authenticated(
    matches(`spiffe://.+/ns/${quoteRegex(namespace)}/(.+/|)sa/${quoteRegex(account)}(/.+)?`),
  );
});

export const trustDomains = each((value) => {
  if (value === '*') return authenticated(beginsWith('spiffe://'));
  if (!value.includes('*')) return authenticated(beginsWith(`spiffe://${value}/`));
  const [before, after] = splitAt(value, value.indexOf('*'));
  return authenticated(matches(`spiffe://${quoteRegex(before)}[^/]*${quoteRegex(after)}/.*`));
});

/** The peer of the connection. */
export const ipBlocks = each((value) => {
  const range = cidrRange(value);
  return range && { directRemoteIp: range };
});

/** Where a proxy says the request comes from: x-forwarded-for, PROXY protocol. */
export const remoteIpBlocks = each((value) => {
  const range = cidrRange(value);
  return range && { remoteIp: range };
});

/** ISSUER/SUBJECT of a JWT; issuers are URLs, so the last slash divides them. */
export const requestPrincipals = httpAll((values) => {
  const found = values.map((value) => {
    const { iss, sub } = issuerAndSubject(value);
    return {
      andIds: {
        ids: [
          { metadata: claim(['iss'], textValue(iss)) },
          { metadata: claim(['sub'], textValue(sub)) },
        ],
      },
    };
  });
  return found.length === 1 ? found[0]! : { orIds: { ids: found } };
});

function issuerAndSubject(value: string): { iss: StringMatcher; sub: StringMatcher } {
  if (value === '*') return { iss: ANY_TEXT, sub: ANY_TEXT };
  const at = value.lastIndexOf('/');
  const [iss, sub] = at < 0 ? [value, ''] : splitAt(value, at);
  if (value.startsWith('*')) {
    if (at < 0) return { iss: ANY_TEXT, sub: endsWith(value.slice(1)) };
    return { iss: iss === '*' ? ANY_TEXT : endsWith(iss.slice(1)), sub: exactly(sub) };
  }
  if (value.endsWith('*')) {
    if (at < 0) return { iss: beginsWith(value.slice(0, -1)), sub: ANY_TEXT };
    return { iss: exactly(iss), sub: sub === '*' ? ANY_TEXT : beginsWith(sub.slice(0, -1)) };
  }
  return { iss: exactly(iss), sub: exactly(sub) };
}

const claimValues = (path: readonly string[]): Matching =>
  httpAll((values) => {
    const value = anyValue(values.map((each) => textValue(textMatch(each))));
    return {
      metadata: claim(path, { orMatch: { valueMatchers: [listValue(value), value] } }),
    };
  });

/** A claim is a text or a list of texts; where the JWT filter has put it. */
function claim(path: readonly string[], value: JsonObject): JsonObject {
  return metadataMatch('envoy.filters.http.jwt_authn', ['payload', ...path], value);
}

const header = (name: string): Matching =>
  httpEach((value) => ({ header: headerMatch(name, value) }));

/** What a condition of `when` is about: a permission or a principal, and how its values match. */
export interface Attribute {
  readonly of: 'permission' | 'principal';
  readonly matching: Matching;
}

const permission = (matching: Matching): Attribute => ({ of: 'permission', matching });
const principal = (matching: Matching): Attribute => ({ of: 'principal', matching });

const ATTRIBUTES = new Map<string, Attribute>([
  ['destination.ip', permission(destinationIp)],
  ['destination.port', permission(ports)],
  ['connection.sni', permission(serverName)],
  ['source.ip', principal(ipBlocks)],
  ['remote.ip', principal(remoteIpBlocks)],
  ['source.namespace', principal(namespaces)],
  ['source.trustDomain', principal(trustDomains)],
  ['source.serviceAccount', principal(serviceAccounts)],
  ['source.principal', principal(principals)],
  ['request.auth.principal', principal(requestPrincipals)],
  ['request.auth.audiences', principal(claimValues(['aud']))],
  ['request.auth.presenter', principal(claimValues(['azp']))],
]);

const never = each(() => undefined);

/**
 * The attribute of a condition's key.
 *
 * @returns undefined where there is no such attribute.
 * @see Istio, "Authorization Policy Conditions"
 */
export function attributeOf(key: string): Attribute | undefined {
  const known = ATTRIBUTES.get(key);
  if (known) return known;
  if (key.startsWith('experimental.envoy.filters.')) return permission(filterMetadata(key));
  if (key.startsWith('request.headers')) {
    const name = inBrackets(key.slice('request.headers'.length));
    return principal(name === undefined ? never : header(name));
  }
  if (key.startsWith('request.auth.claims')) {
    const names = inNestedBrackets(key.slice('request.auth.claims'.length));
    return principal(names === undefined ? never : claimValues(names));
  }
  return undefined;
}

function inBrackets(text: string): string | undefined {
  return text.startsWith('[') && text.endsWith(']') && text.length > 1
    ? text.slice(1, -1)
    : undefined;
}

/** `[a][b]` is a path; what has brackets in its names is one name. */
function inNestedBrackets(text: string): string[] | undefined {
  if (/^(\[[^[\]]*\])+$/.test(text))
    return Array.from(text.matchAll(/\[([^[\]]*)\]/g), ([, name]) => name!);
  const name = inBrackets(text);
  return name === undefined ? undefined : [name];
}

function splitAt(text: string, at: number): [string, string] {
  return [text.slice(0, at), text.slice(at + 1)];
}
