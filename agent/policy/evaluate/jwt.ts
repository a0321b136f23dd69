import { isObject, objectOf, objectsOf, textOf, textsOf } from '../resources/fields';
import type { Json, JsonObject } from '../resources/resource';
import { type Headers, headerValue, matchesHeader, uninterpretable } from './match';
import { withoutQuery } from './path';
import { matchesRe2 } from './regex';

/**
 * Whether a token is signed by a key of a JWKS.
 *
 * @param jwks   As the provider has it.
 * @param token  The compact form.
 */
export type VerifyToken = (jwks: string, token: string) => Promise<boolean>;

export interface JwtOptions {
  readonly verify: VerifyToken;
  /** Epoch seconds. */
  readonly now: number;
}

/** What jwt_authn made of a request: what later filters see, or why it answers itself. */
export interface JwtResult {
  readonly headers: Headers;
  readonly metadata: JsonObject;
  /** Undefined where the request goes on. */
  readonly refused: { readonly status: 401 | 403; readonly reason: Failure } | undefined;
}

/** Envoy's words. */
type Failure =
  | 'Jwt is missing'
  | 'Jwt is not in the form of Header.Payload.Signature'
  | 'Jwt issuer is not configured'
  | 'Jwt is expired'
  | 'Jwt not yet valid'
  | 'Audiences in Jwt are not allowed'
  | 'Jwt verification fails';

const CLOCK_SKEW_SECONDS = 60;
const BEARER = 'Bearer ';

/** Applies `envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication` to a request. */
export async function authenticate(
  config: JsonObject,
  request: Headers,
  options: JwtOptions,
): Promise<JwtResult> {
  const passes = { headers: request, metadata: {}, refused: undefined };
  if (config.bypassCorsPreflight === true && isPreflight(request)) return passes;
  const rule = objectsOf(config.rules).find(({ match }) => matchesRoute(objectOf(match), request));
  if (!rule) return passes;
  const { requires, requirementName } = rule;
  const required =
    requirementName === undefined
      ? requires
      : objectOf(config.requirementMap)[String(requirementName)];
  if (required === undefined) return passes;
  const state = new Verification(objectOf(config.providers), request, options);
  const failure = await state.fulfil(objectOf(required), []);
  if (failure === undefined)
    return { headers: state.headers, metadata: state.payloads, refused: undefined };
  const status = failure === 'Audiences in Jwt are not allowed' ? 403 : 401;
  return { headers: state.headers, metadata: {}, refused: { status, reason: failure } };
}

function isPreflight(headers: Headers): boolean {
  return (
    headerValue(headers, ':method') === 'OPTIONS' &&
    Boolean(headerValue(headers, 'origin')) &&
    Boolean(headerValue(headers, 'access-control-request-method'))
  );
}

/** `envoy.config.route.v3.RouteMatch`, as far as filters have it. */
function matchesRoute(match: JsonObject, headers: Headers): boolean {
  const path = headerValue(headers, ':path') ?? '';
  const bare = withoutQuery(path);
  const { headers: matchers, caseSensitive, ...pattern } = match;
  if (!objectsOf(matchers).every((each) => matchesHeader(each, headers))) return false;
  const fold = (text: string) => (caseSensitive === false ? text.toLowerCase() : text);
  const [[kind, value] = ['nothing', '']] = Object.entries(pattern);
  switch (kind) {
    case 'prefix':
      return fold(path).startsWith(fold(String(value)));
    case 'path':
      return fold(bare) === fold(String(value));
    case 'safeRegex':
      return matchesRe2(String(objectOf(value).regex), bare);
    case 'pathSeparatedPrefix':
      return `${fold(bare)}/`.startsWith(`${fold(String(value))}/`);
    default:
      throw uninterpretable(`a route that matches ${kind}`);
  }
}

interface FoundToken {
  readonly token: string;
  /** Issuers whose providers look there; undefined takes all. */
  readonly issuers: readonly string[];
  /** The header that goes once the token is accepted. */
  readonly header: string | undefined;
}

class Verification {
  readonly payloads: Record<string, Json> = {};

  constructor(
    private readonly providers: JsonObject,
    public headers: Headers,
    private readonly options: JwtOptions,
  ) {
    // Nobody but a provider may set what providers set.
    const set = Object.values(providers)
      .map(objectOf)
      .flatMap(({ forwardPayloadHeader, claimToHeaders }) => [
        String(forwardPayloadHeader ?? ''),
        ...objectsOf(claimToHeaders).map(({ headerName }) => String(headerName)),
      ]);
    const names = new Set(set.map((name) => name.toLowerCase()));
    this.headers = headers.filter(([name]) => !names.has(name));
  }

  /** @returns Undefined where `JwtRequirement` is met. */
  async fulfil(requirement: JsonObject, others: readonly string[]): Promise<Failure | undefined> {
    const [[kind, value] = ['', null]] = Object.entries(requirement);
    const fields = objectOf(value);
    switch (kind) {
      case 'requiresAny':
        return this.any(objectsOf(fields.requirements));
      case 'requiresAll':
        for (const each of objectsOf(fields.requirements)) {
          const failure = await this.fulfil(each, []);
          if (failure !== undefined) return failure;
        }
        return undefined;
      case 'providerName':
        return this.tokens([String(value)], String(value), {});
      case 'providerAndAudiences':
        return this.tokens([String(fields.providerName)], String(fields.providerName), {
          audiences: textsOf(fields.audiences),
        });
      case 'allowMissing':
        return this.tokens(others, undefined, { missing: true });
      case 'allowMissingOrFailed':
        await this.tokens(others, undefined, { missing: true });
        return undefined;
      case '':
        return undefined;
      default:
        throw uninterpretable(`a JWT requirement with ${kind}`);
    }
  }

  private async any(all: readonly JsonObject[]): Promise<Failure | undefined> {
    const isPass = (each: JsonObject) => 'allowMissing' in each || 'allowMissingOrFailed' in each;
    const passes = all.filter(isPass);
    const pass = passes.find((each) => 'allowMissingOrFailed' in each) ?? passes[0];
    const regular = all.filter((each) => !isPass(each));
    const used = regular.flatMap((each) =>
      'providerName' in each
        ? [String(each.providerName)]
        : 'providerAndAudiences' in each
          ? [String(objectOf(each.providerAndAudiences).providerName)]
          : [],
    );
    let kept: Failure | undefined;
    let last: Failure | undefined;
    for (const each of [...regular, ...(pass ? [pass] : [])]) {
      last = await this.fulfil(each, each === pass ? used : []);
      if (last === undefined) return undefined;
      if (last !== 'Jwt is missing' && last !== 'Jwt issuer is not configured') kept = last;
    }
    return kept ?? last;
  }

  private async tokens(
    names: readonly string[],
    provider: string | undefined,
    { missing = false, audiences }: { missing?: boolean; audiences?: readonly string[] },
  ): Promise<Failure | undefined> {
    const found = this.find(names.map((name) => objectOf(this.providers[name])));
    if (found.length === 0) return missing ? undefined : 'Jwt is missing';
    for (const each of found.reverse()) {
      const failure = await this.accept(each, provider, audiences);
      if (failure !== undefined) return failure;
    }
    return undefined;
  }

  private async accept(
    found: FoundToken,
    name: string | undefined,
    audiences: readonly string[] | undefined,
  ): Promise<Failure | undefined> {
    const claims = claimsOf(found.token);
    if (!claims) return 'Jwt is not in the form of Header.Payload.Signature';
    const issuer = String(claims.iss ?? '');
    if (!found.issuers.includes('') && !found.issuers.includes(issuer))
      return 'Jwt issuer is not configured';
    const own = name === undefined ? this.ofIssuer(issuer) : [objectOf(this.providers[name])];
    const [provider, ...others] = own;
    if (!provider) return 'Jwt issuer is not configured';
    const failure = await this.failureOf(found.token, claims, provider, audiences);
    for (const other of others)
      if ((await this.failureOf(found.token, claims, other, audiences)) !== failure)
        // Their order is that of a hash map.
        throw uninterpretable(
          `a token that providers of issuer ${issuer} verify differently: Envoy asks any of them`,
        );
    if (failure === undefined) this.proceed(found, provider, claims);
    return failure;
  }

  private async failureOf(
    token: string,
    claims: JsonObject,
    provider: JsonObject,
    audiences: readonly string[] | undefined,
  ): Promise<Failure | undefined> {
    const skew = Number(provider.clockSkewSeconds ?? 0) || CLOCK_SKEW_SECONDS;
    const { now, verify } = this.options;
    if (typeof claims.nbf === 'number' && now + skew < claims.nbf) return 'Jwt not yet valid';
    if (typeof claims.exp === 'number' && now > claims.exp + skew) return 'Jwt is expired';
    if (!hasAudience(claims.aud, audiences ?? textsOf(provider.audiences)))
      return 'Audiences in Jwt are not allowed';
    const jwks = objectOf(provider.localJwks).inlineString;
    if (typeof jwks !== 'string') throw uninterpretable('a JWT provider without inline keys');
    return (await verify(jwks, token)) ? undefined : 'Jwt verification fails';
  }

  private ofIssuer(issuer: string): readonly JsonObject[] {
    const all = Object.values(this.providers).map(objectOf);
    const own = all.filter((each) => each.issuer === issuer);
    return own.length > 0 ? own : all.filter((each) => textOf(each.issuer) === undefined);
  }

  private find(providers: readonly JsonObject[]): FoundToken[] {
    const locations = new Locations(providers);
    return locations.find(this.headers);
  }

  private proceed({ token, header }: FoundToken, provider: JsonObject, claims: JsonObject): void {
    const added: (readonly [string, string])[] = [];
    const payload = textOf(provider.forwardPayloadHeader);
    if (payload !== undefined) added.push([payload.toLowerCase(), token.split('.')[1]!]);
    for (const { claimName, headerName } of objectsOf(provider.claimToHeaders)) {
      const text = claimText(nested(claims, String(claimName)));
      if (text) added.push([String(headerName).toLowerCase(), text]);
    }
    const isKept = ([name]: Headers[number]) => provider.forward === true || name !== header;
    this.headers = [...this.headers, ...added].filter(isKept);
    const key = textOf(provider.payloadInMetadata);
    if (key !== undefined) this.payloads[key] = normalized(claims, provider);
  }
}

/** Where tokens of some providers are looked for, in Envoy's order. */
class Locations {
  private readonly headers = new Map<string, [name: string, prefix: string, issuers: string[]]>();
  private readonly params = new Map<string, string[]>();
  private readonly cookies = new Map<string, string[]>();

  constructor(providers: readonly JsonObject[]) {
    for (const provider of providers) {
      const issuer = String(provider.issuer ?? '');
      const fromHeaders = objectsOf(provider.fromHeaders);
      const fromParams = textsOf(provider.fromParams);
      const fromCookies = textsOf(provider.fromCookies);
      const isDefault = fromHeaders.length + fromParams.length + fromCookies.length === 0;
      for (const { name, valuePrefix } of isDefault
        ? [{ name: 'authorization', valuePrefix: BEARER }]
        : fromHeaders)
        this.header(String(name).toLowerCase(), String(valuePrefix ?? ''), issuer);
      for (const name of isDefault ? ['access_token'] : fromParams) add(this.params, name, issuer);
      for (const name of fromCookies) add(this.cookies, name, issuer);
    }
  }

  private header(name: string, prefix: string, issuer: string): void {
    const key = name + prefix;
    const known = this.headers.get(key);
    if (known) known[2].push(issuer);
    else this.headers.set(key, [name, prefix, [issuer]]);
  }

  find(headers: Headers): FoundToken[] {
    const found: FoundToken[] = [];
    for (const [, [name, prefix, issuers]] of sorted(this.headers))
      for (const [each, value] of headers) {
        const at = value.indexOf(prefix);
        if (each !== name || at < 0) continue;
        const token = prefix === '' ? value : bareToken(value, at + prefix.length);
        found.push({ token, issuers, header: name });
      }
    const path = headerValue(headers, ':path') ?? '';
    const query = new URLSearchParams(path.includes('?') ? path.slice(path.indexOf('?') + 1) : '');
    for (const [name, issuers] of sorted(this.params)) {
      const token = query.get(name);
      if (token !== null) found.push({ token, issuers, header: undefined });
    }
    const cookies = cookiesOf(headers);
    for (const [name, issuers] of sorted(this.cookies)) {
      const token = cookies.get(name);
      if (token !== undefined) found.push({ token, issuers, header: undefined });
    }
    return found;
  }
}

function add(map: Map<string, string[]>, name: string, issuer: string): void {
  map.set(name, [...(map.get(name) ?? []), issuer]);
}

function sorted<T>(map: ReadonlyMap<string, T>): [string, T][] {
  return [...map].sort(([one], [other]) => (one < other ? -1 : 1));
}

/** From the first character that a token may have. */
function bareToken(value: string, after: number): string {
  const at = value.slice(after).search(/[\w.-]/);
  return at < 0 ? value : value.slice(after + at);
}

function cookiesOf(headers: Headers): ReadonlyMap<string, string> {
  const cookies = new Map<string, string>();
  for (const [name, value] of headers) {
    if (name !== 'cookie') continue;
    for (const pair of value.split(';')) {
      const at = pair.indexOf('=');
      if (at < 0) continue;
      const key = pair.slice(0, at).trim();
      const text = pair.slice(at + 1).trim();
      if (!cookies.has(key)) cookies.set(key, text.replace(/^"(.*)"$/, '$1'));
    }
  }
  return cookies;
}

function claimsOf(token: string): JsonObject | undefined {
  const parts = token.split('.');
  if (parts.length !== 3) return undefined;
  try {
    const claims = JSON.parse(Buffer.from(parts[1]!, 'base64url').toString('utf8'));
    return isObject(claims) ? claims : undefined;
  } catch {
    return undefined;
  }
}

/** Without configured audiences every token has one. A scheme and a last slash do not count. */
function hasAudience(claim: Json | undefined, wanted: readonly string[]): boolean {
  if (wanted.length === 0) return true;
  const bare = (text: string) => text.replace(/^https?:\/\//, '').replace(/\/$/, '');
  const own = (typeof claim === 'string' ? [claim] : textsOf(claim)).map(bare);
  return wanted.some((each) => own.includes(bare(each)));
}

function nested(claims: JsonObject, name: string): Json | undefined {
  let value: Json | undefined = claims;
  for (const key of name.split('.'))
    value = isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined;
  return value;
}

function claimText(value: Json | undefined): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'boolean') return String(value);
  if (typeof value !== 'number') return '';
  return Number.isInteger(value) && value >= 0 ? String(value) : value.toFixed(6);
}

/** Claims that are several words become lists. */
function normalized(claims: JsonObject, provider: JsonObject): JsonObject {
  const words = textsOf(objectOf(provider.normalizePayloadInMetadata).spaceDelimitedClaims);
  const changed = words.flatMap((name) => {
    const value = Object.hasOwn(claims, name) ? claims[name] : undefined;
    return typeof value === 'string' ? [[name, value.split(' ').filter(Boolean)] as const] : [];
  });
  return { ...claims, ...Object.fromEntries(changed) };
}
