import { quoteRegex } from '../resources/quote-regex';
import type { Json, JsonObject } from '../resources/resource';

/** `envoy.type.matcher.v3.StringMatcher`, proto3 JSON. */
export type StringMatcher = JsonObject;

export const exactly = (exact: string): StringMatcher => ({ exact });
export const beginsWith = (prefix: string): StringMatcher => ({ prefix });
export const endsWith = (suffix: string): StringMatcher => ({ suffix });
/** RE2, of the whole value. */
export const matches = (regex: string): StringMatcher => ({ safeRegex: { regex } });
/** Envoy takes no empty prefix or suffix. */
export const ANY_TEXT = matches('.+');

/**
 * The match of a value with at most one wildcard, at its start or end: presence, suffix, prefix or
 * the value itself. A suffix behind a scheme becomes an expression.
 *
 * @param scheme  What stands before every value, `spiffe://` for principals.
 * @see Istio, security/v1beta1 AuthorizationPolicy, "Exact match, prefix match, suffix match and presence match"
 */
export function textMatch(value: string, scheme = ''): StringMatcher {
  if (value === '*') return ANY_TEXT;
  if (value.startsWith('*')) {
    const suffix = value.slice(1);
    return scheme === '' ? endsWith(suffix) : matches(`${scheme}.*${quoteRegex(suffix)}`);
  }
  if (value.endsWith('*')) return beginsWith(scheme + value.slice(0, -1));
  return exactly(scheme + value);
}

/** `envoy.config.route.v3.HeaderMatcher` of a value with its wildcard. */
export function headerMatch(name: string, value: string, ignoreCase = false): JsonObject {
  if (value === '*') return { name, presentMatch: true };
  const match = textMatch(value);
  return { name, stringMatch: ignoreCase ? { ...match, ignoreCase: true } : match };
}

/** One `ValueMatcher` that holds where any of these does. */
export function anyValue(matchers: readonly JsonObject[]): JsonObject {
  return matchers.length === 1 ? matchers[0]! : { orMatch: { valueMatchers: matchers } };
}

export const textValue = (match: StringMatcher): JsonObject => ({ stringMatch: match });
export const listValue = (value: JsonObject): JsonObject => ({ listMatch: { oneOf: value } });

/** `envoy.type.matcher.v3.MetadataMatcher`. */
export function metadataMatch(filter: string, keys: readonly string[], value: Json): JsonObject {
  return { filter, path: keys.map((key) => ({ key })), value };
}
