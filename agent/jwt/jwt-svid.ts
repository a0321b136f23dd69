import { AgentError } from '../base/errors';
import type { VerifiedJwt } from '../identity/jwt-svid';
import type { JwtKey } from '../identity/spiffe-bundle';
import { parseSpiffeId, type SpiffeId } from '../identity/spiffe-id';
import { type KeySet, parseKeySet, SVID_ALGORITHMS } from './key-set';

const MAX_TOKEN = 16 * 1024;
/** How far clocks of issuers may be off. */
const SKEW_SECONDS = 60;
/** The last second that a Date can hold; what lies beyond is no instant. */
const LAST_SECOND = 8.64e12;
/** Three parts of base64url (RFC 7515 section 3.1). */
const COMPACT = /^([\w-]+)\.([\w-]+)\.[\w-]+$/;

type Json = Readonly<Record<string, unknown>>;

/**
 * Judges a JWT-SVID as whoever is `audience` would have to. Nothing in it says where its key is: the trust domain of its subject decides
 * whose keys count, and its algorithm must be one of asymmetric keys and fit the key.
 *
 * @param keysOf  The keys of a trust domain; undefined or empty where none of its tokens is to be believed.
 * @param now     Epoch milliseconds.
 * @throws        AgentError ERR_TOKEN with the field (`token alg`, `token key`, `token aud`, ...); never a part of the token.
 * @see JWT-SVID section 4 and Appendix A; RFC 8725.
 */
export async function verifyJwtSvid(
  token: string,
  audience: string,
  keysOf: (trustDomain: string) => readonly JwtKey[] | undefined,
  now: number,
): Promise<VerifiedJwt> {
  const [, header, payload] = (token.length <= MAX_TOKEN && COMPACT.exec(token)) || [];
  if (header === undefined || payload === undefined)
    throw refuse('token', 'must be a JWS in compact form');
  const kid = readHeader(readPart(header, 'token header'));
  const { trustDomain } = readSubject(readPart(payload, 'token claims'));
  const all = keysOf(trustDomain) ?? [];
  if (all.length === 0)
    throw refuse('token sub', `must be of a trust domain with a known bundle, not ${trustDomain}`);
  const keys = kid === undefined ? all : all.filter((key) => key.kid === kid);
  if (keys.length === 0) throw refuse('token key', 'must be one of its trust domain');
  const verified = await (await keySetOf(keys)).verify(token);
  const claims = readJson(Buffer.from(verified).toString('utf8'), 'token claims');
  assertClaims(claims, audience, now / 1_000);
  return { id: readSubject(claims), claims };
}

function readHeader(header: Json): string | undefined {
  const { alg, typ, kid } = header;
  if (!SVID_ALGORITHMS.some((each) => each === alg))
    throw refuse('token alg', `must be one of ${SVID_ALGORITHMS.join(', ')}`);
  if (typ !== undefined && typ !== 'JWT' && typ !== 'JOSE')
    throw refuse('token typ', 'must be JWT or JOSE');
  if (kid !== undefined && typeof kid !== 'string') throw refuse('token kid', 'must be a text');
  return kid;
}

function readSubject({ sub }: Json): SpiffeId {
  try {
    return parseSpiffeId(typeof sub === 'string' ? sub : '');
  } catch (cause) {
    throw refuse('token sub', 'must be a SPIFFE ID', cause);
  }
}

function assertClaims(claims: Json, audience: string, nowSeconds: number): void {
  const { aud } = claims;
  const audiences: readonly unknown[] = Array.isArray(aud) ? aud : [aud];
  if (!audiences.includes(audience))
    throw refuse('token aud', 'must hold the audience that was asked for');
  const exp = readTime(claims, 'exp');
  if (exp === undefined) throw refuse('token exp', 'must be there');
  if (nowSeconds >= exp) throw refuse('token exp', 'must not be past');
  for (const name of ['nbf', 'iat'] as const) {
    if ((readTime(claims, name) ?? 0) > nowSeconds + SKEW_SECONDS)
      throw refuse(`token ${name}`, 'must not be ahead');
  }
}

function readTime(claims: Json, name: 'exp' | 'nbf' | 'iat'): number | undefined {
  const value = claims[name];
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0 || value > LAST_SECOND) {
    throw refuse(`token ${name}`, 'must be a number of seconds');
  }
  return value;
}

function readPart(encoded: string, field: string): Json {
  return readJson(Buffer.from(encoded, 'base64url').toString('utf8'), field);
}

function readJson(text: string, field: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's own words may quote the token.
    throw refuse(field, 'must be JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw refuse(field, 'must be a JSON object');
  return value as Json;
}

/** Keys that verified once verify again: reading them costs more than a signature. */
const keySets = new WeakMap<JwtKey, Promise<KeySet>>();

function keySetOf(keys: readonly JwtKey[]): Promise<KeySet> {
  const [only, ...more] = keys as [JwtKey, ...JwtKey[]];
  const known = more.length === 0 ? keySets.get(only) : undefined;
  const made = known ?? parseKeySet(JSON.stringify({ keys }), 'token keys', SVID_ALGORITHMS);
  if (more.length === 0) keySets.set(only, made);
  return made;
}

function refuse(field: string, rule: string, cause?: unknown): AgentError {
  return new AgentError('ERR_TOKEN', `${field}: ${rule}`, { field, rule, retry: 'never', cause });
}
