import { textOf } from '../resources/fields';
import type { FieldPath, Json, JsonObject } from '../resources/resource';
import type { Check } from './check';
import { checkSelection } from './selection';

/** @see istio pkg/config/validation ValidateRequestAuthentication, istio.io/api JWTRule */
export function checkRequestAuthentication(check: Check): void {
  checkSelection(check);
  for (const { item, at } of check.each(check.resource.spec.jwtRules, ['spec', 'jwtRules']))
    checkRule(check, item, at);
}

function checkRule(check: Check, rule: JsonObject, at: FieldPath): void {
  if (!textOf(rule.issuer) && !textOf(rule.jwksUri))
    check.refuse([...at, 'issuer'], 'must not be empty where there is no jwksUri');
  if (textOf(rule.jwks) && textOf(rule.jwksUri))
    check.refuse([...at, 'jwks'], 'must not stand beside jwksUri');
  for (const name of ['audiences', 'fromParams', 'fromCookies', 'spaceDelimitedClaims'])
    check.texts(rule[name], [...at, name]);
  const uri = textOf(rule.jwksUri);
  if (uri !== undefined && !isHttpUrl(uri))
    check.refuse([...at, 'jwksUri'], 'must be an http or https URL');
  checkJwks(check, textOf(rule.jwks), [...at, 'jwks']);
  for (const { item, at: header } of check.each(rule.fromHeaders, [...at, 'fromHeaders']))
    check.needed(item.name, [...header, 'name']);
  for (const each of check.each(rule.outputClaimToHeaders, [...at, 'outputClaimToHeaders'])) {
    check.needed(each.item.claim, [...each.at, 'claim']);
    checkHeaderName(check, each.item.header, [...each.at, 'header']);
  }
  const timeout = textOf(rule.timeout);
  if (timeout !== undefined && !isWholeMs(timeout))
    check.refuse([...at, 'timeout'], 'must be whole milliseconds, at least 1ms');
}

/** @param seconds  As the reader has them: `1.5s`. */
function isWholeMs(seconds: string): boolean {
  return /^\d+(\.\d{1,3})?s$/.test(seconds) && Number.parseFloat(seconds) > 0;
}

function isHttpUrl(text: string): boolean {
  return /^https?:\/\//i.test(text) && URL.canParse(text);
}

function checkHeaderName(check: Check, name: Json | undefined, at: FieldPath): void {
  check.needed(name, at);
  if (typeof name === 'string' && name !== '' && !/^[-_A-Za-z0-9]+$/.test(name))
    check.refuse(at, 'must be a header name of letters, digits, - and _');
}

const PRIVATE_FIELDS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'k'];

function checkJwks(check: Check, text: string | undefined, at: FieldPath): void {
  if (text === undefined) return;
  const keys = keysOf(text);
  if (!keys) {
    check.refuse(at, 'must be a JSON Web Key Set: {"keys": [...]}');
    return;
  }
  for (const [index, key] of keys.entries()) {
    if (PRIVATE_FIELDS.some((name) => name in key))
      check.refuse(at, `key ${index} is private or symmetric`, 'give public keys only');
    const missing = missingField(key);
    if (missing !== undefined) check.refuse(at, `key ${index} ${missing}`);
  }
}

/** The public parts of a key by its type, RFC 7518 section 6 and RFC 8037. */
const PUBLIC_FIELDS: Readonly<Record<string, readonly string[]>> = {
  RSA: ['n', 'e'],
  EC: ['crv', 'x', 'y'],
  OKP: ['crv', 'x'],
  oct: ['k'],
};

function missingField(key: object): string | undefined {
  const { kty } = key as { kty?: unknown };
  const known = typeof kty === 'string' && Object.hasOwn(PUBLIC_FIELDS, kty);
  if (!known) return `has no kty of ${Object.keys(PUBLIC_FIELDS).slice(0, -1).join(', ')}`;
  const fields = key as Readonly<Record<string, unknown>>;
  const missing = PUBLIC_FIELDS[kty]!.find((name) => typeof fields[name] !== 'string');
  return missing === undefined ? undefined : `has no ${missing}`;
}

function keysOf(text: string): readonly object[] | undefined {
  try {
    const { keys } = JSON.parse(text);
    const areObjects =
      Array.isArray(keys) && keys.every((key) => typeof key === 'object' && key !== null);
    return areObjects ? keys : undefined;
  } catch {
    return undefined;
  }
}
