import { BlockList, isIP } from 'node:net';
import { isObject, objectOf, objectsOf } from '../resources/fields';
import type { Json, JsonObject } from '../resources/resource';

/** Whether `envoy.type.matcher.v3.StringMatcher` matches. @throws RangeError for what has no meaning here. */
export function matchesText(matcher: JsonObject, value: string): boolean {
  const fold = matcher.ignoreCase === true ? (text: string) => text.toLowerCase() : same;
  const given = fold(value);
  const wanted = (text: Json) => fold(String(text));
  if (matcher.exact !== undefined) return given === wanted(matcher.exact);
  if (matcher.prefix !== undefined) return given.startsWith(wanted(matcher.prefix));
  if (matcher.suffix !== undefined) return given.endsWith(wanted(matcher.suffix));
  if (matcher.contains !== undefined) return given.includes(wanted(matcher.contains));
  if (isObject(matcher.safeRegex)) return re2(String(matcher.safeRegex.regex)).test(value);
  throw new RangeError(`no such text matcher: ${Object.keys(matcher).join(', ')}`);
}

const same = (text: string) => text;

/** What a matcher wants, for people. */
export function showText(matcher: JsonObject): string {
  if (matcher.exact !== undefined) return JSON.stringify(matcher.exact);
  if (matcher.prefix !== undefined) return `${JSON.stringify(matcher.prefix)}*`;
  if (matcher.suffix !== undefined) return `*${JSON.stringify(matcher.suffix)}`;
  if (isObject(matcher.safeRegex)) return `/${String(matcher.safeRegex.regex)}/`;
  return JSON.stringify(matcher);
}

/**
 * An expression of RE2 that has to match the whole value.
 *
 * @throws RangeError where JavaScript would read it in another way, or not at all.
 */
function re2(source: string): RegExp {
  // What RE2 has and JavaScript has not, or in another meaning.
  if (/\(\?(?![:])|\\[pPCAzQEsSbB]|\[\[:/.test(source))
    throw new RangeError(`this expression of RE2 cannot be evaluated here: ${source}`);
  try {
    return new RegExp(`^(?:${source})$`, 'u');
  } catch {
    throw new RangeError(`this expression of RE2 cannot be evaluated here: ${source}`);
  }
}

/** Whether an address lies in `envoy.config.core.v3.CidrRange`. */
export function isInRange(range: JsonObject, address: string): boolean {
  const prefix = String(range.addressPrefix);
  const family = isIP(prefix) === 6 ? 'ipv6' : 'ipv4';
  if (isIP(address) !== isIP(prefix)) return false;
  const list = new BlockList();
  list.addSubnet(prefix, Number(range.prefixLen ?? 0), family);
  return list.check(address, family);
}

/** Whether `envoy.type.matcher.v3.ValueMatcher` matches; undefined is a value that is not there. */
export function matchesValue(matcher: JsonObject, value: Json | undefined): boolean {
  if (isObject(matcher.orMatch))
    return objectsOf(matcher.orMatch.valueMatchers).some((each) => matchesValue(each, value));
  if (isObject(matcher.listMatch)) {
    const oneOf = objectOf(matcher.listMatch.oneOf);
    return Array.isArray(value) && value.some((each) => matchesValue(oneOf, each));
  }
  if (isObject(matcher.stringMatch))
    return typeof value === 'string' && matchesText(matcher.stringMatch, value);
  if (matcher.boolMatch !== undefined) return value === matcher.boolMatch;
  if (matcher.presentMatch !== undefined) return (value !== undefined) === matcher.presentMatch;
  if (matcher.nullMatch !== undefined) return value === null;
  throw new RangeError(`no such value matcher: ${Object.keys(matcher).join(', ')}`);
}

/**
 * A path template of Envoy: `*` is one segment, `**` any number of them.
 *
 * @see envoy source/extensions/path/uri_template_lib
 */
export function matchesTemplate(template: string, path: string): boolean {
  const source = template
    .split(/(\*\*?)/)
    .map((part) => {
      if (part === '*') return `${SEGMENT}+`;
      if (part === '**') return `(?:${SEGMENT}|/)*`;
      return part.replace(/[\\.+*?()|[\]{}^$]/g, '\\$&');
    })
    .join('');
  return new RegExp(`^${source}$`).test(path);
}

const SEGMENT = "[a-zA-Z0-9\\-._~%!$&'()+,;:@=]";
