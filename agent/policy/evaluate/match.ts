import { AgentError } from '../../base/errors';
import { isObject, objectOf, objectsOf } from '../resources/fields';
import type { Json, JsonObject } from '../resources/resource';
import { matchesRe2 } from './regex';

/** What is set of alternatives of which exactly one has to be, proto3's `oneof`. */
export function oneOf(message: JsonObject, what: string): readonly [field: string, value: Json] {
  const [only, ...others] = Object.entries(message);
  if (!only || others.length > 0)
    throw uninterpretable(`${what} with ${only ? Object.keys(message).join(', ') : 'nothing'}`);
  return only;
}

export function uninterpretable(what: string): AgentError {
  return new AgentError('ERR_POLICY', `cannot interpret ${what}`, {
    hint: 'send the request to a real Envoy',
  });
}

/** `envoy.type.matcher.v3.StringMatcher`. */
export function matchesText(matcher: JsonObject, text: string): boolean {
  const { ignoreCase, ...pattern } = matcher;
  const [kind, value] = oneOf(pattern, 'a string matcher');
  if (kind === 'safeRegex') return matchesRe2(String(objectOf(value).regex), text);
  const fold = (each: string) => (ignoreCase === true ? asciiLower(each) : each);
  const [own, wanted] = [fold(text), fold(String(value))];
  switch (kind) {
    case 'exact':
      return own === wanted;
    case 'prefix':
      return own.startsWith(wanted);
    case 'suffix':
      return own.endsWith(wanted);
    case 'contains':
      return own.includes(wanted);
    default:
      throw uninterpretable(`a string matcher with ${kind}`);
  }
}

function asciiLower(text: string): string {
  return text.replace(/[A-Z]/g, (char) => char.toLowerCase());
}

/** A header as it is on the wire, several of one name in their order. Names are lower case. */
export type Headers = readonly (readonly [name: string, value: string])[];

/** The first header of a name; undefined where there is none. */
export function headerValue(headers: Headers, name: string): string | undefined {
  return headerValues(headers, name)[0];
}

function headerValues(headers: Headers, name: string): string[] {
  const wanted = name.toLowerCase();
  return headers.flatMap(([each, value]) => (each === wanted ? [value] : []));
}

/** Older spellings of a string matcher in a header matcher. */
const OLD_MATCHES: Readonly<Record<string, string>> = {
  exactMatch: 'exact',
  prefixMatch: 'prefix',
  suffixMatch: 'suffix',
  containsMatch: 'contains',
  safeRegexMatch: 'safeRegex',
};

/** `envoy.config.route.v3.HeaderMatcher`. */
export function matchesHeader(matcher: JsonObject, headers: Headers): boolean {
  const { name, invertMatch, treatMissingHeaderAsEmpty, ...pattern } = matcher;
  const values = headerValues(headers, String(name));
  const isInverted = invertMatch === true;
  if (Object.keys(pattern).length === 0) return values.length > 0 !== isInverted;
  const [kind, wanted] = oneOf(pattern, 'a header matcher');
  if (kind === 'presentMatch') return (values.length > 0 === (wanted === true)) !== isInverted;
  const isEmpty = values.length === 0 && treatMissingHeaderAsEmpty === true;
  // Of several headers of one name any one may match; Envoy does not join them here.
  const all = isEmpty ? [''] : values;
  return all.some((each) => matchesHeaderValue(kind, wanted, each)) !== isInverted;
}

function matchesHeaderValue(kind: string, wanted: Json, text: string): boolean {
  if (kind === 'stringMatch') return matchesText(objectOf(wanted), text);
  if (kind === 'rangeMatch') {
    const { start = 0, end = 0 } = objectOf(wanted);
    const number = /^[+-]?\d+$/.test(text) ? Number(text) : Number.NaN;
    return number >= Number(start) && number < Number(end);
  }
  const old = OLD_MATCHES[kind];
  if (old === undefined) throw uninterpretable(`a header matcher with ${kind}`);
  return matchesText({ [old]: wanted }, text);
}

/** `envoy.type.matcher.v3.MetadataMatcher`, of what filters have found out about the request. */
export function matchesMetadata(matcher: JsonObject, metadata: JsonObject): boolean {
  let found: Json | undefined = ownOf(metadata, String(matcher.filter));
  for (const { key } of objectsOf(matcher.path)) found = ownOf(found, String(key));
  return matchesValue(objectOf(matcher.value), found) !== (matcher.invert === true);
}

function ownOf(value: Json | undefined, key: string): Json | undefined {
  return isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined;
}

/** `envoy.type.matcher.v3.ValueMatcher`. */
function matchesValue(matcher: JsonObject, value: Json | undefined): boolean {
  const [kind, wanted] = oneOf(matcher, 'a value matcher');
  switch (kind) {
    case 'stringMatch':
      return typeof value === 'string' && matchesText(objectOf(wanted), value);
    case 'orMatch':
      return objectsOf(objectOf(wanted).valueMatchers).some((each) => matchesValue(each, value));
    case 'listMatch':
      return (
        Array.isArray(value) &&
        value.some((each) => matchesValue(objectOf(objectOf(wanted).oneOf), each))
      );
    case 'presentMatch':
      return value !== undefined && wanted === true;
    case 'boolMatch':
      return value === wanted;
    case 'nullMatch':
      return value === null;
    default:
      throw uninterpretable(`a value matcher with ${kind}`);
  }
}
