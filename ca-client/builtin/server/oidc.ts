import type { Deps } from '../../../agent/base/deps';
import { AgentError } from '../../../agent/base/errors';
import { type Authenticator, ownIdentity, refuseCredential, serviceAccountIdentity, type TrustDomains } from './authenticator';
import { type Claims, parseClaims, readClaims } from './jwt-claims';
import { TOKEN_ALGORITHMS, type TokenAlgorithm } from './key-set';
import { type KeyPlace, type KeySource, openKeySource } from './key-source';

export interface OidcOptions extends TrustDomains, KeyPlace {
  /** Values of `iss` that are taken, to the letter. */
  readonly issuers: readonly string[];
  /** At least one of them must be in `aud`. */
  readonly audiences: readonly string[];
  /** Default all of `TOKEN_ALGORITHMS`. */
  readonly algorithms?: readonly TokenAlgorithm[];
  /** The claim that holds a whole SPIFFE ID, e.g. `sub` in a JWT-SVID; default none: `sub` names a Kubernetes service account. */
  readonly spiffeIdClaim?: string | undefined;
}

/** How far clocks of issuers may be off. */
const SKEW_SECONDS = 60;
/** The last second that a Date can hold; what lies beyond is no instant. */
const LAST_SECOND = 8.64e12;

/**
 * Tokens of OpenID Connect issuers, service account tokens among them, verified here with the issuers' public keys. Nothing in a token says
 * where to find its key: `jwk`, `jku`, `x5u` and `x5c` are not looked at, and a `crit` that nobody here understands refuses it.
 *
 * @throws AgentError ERR_CONFIG | ERR_PARSE | ERR_INPUT where the keys cannot be read.
 * @see RFC 7519 section 4.1; RFC 8725.
 */
export async function createOidcAuthenticator(options: OidcOptions, deps: Deps): Promise<Authenticator> {
  const source = await openKeySource(options, options.algorithms ?? TOKEN_ALGORITHMS, deps);
  return {
    name: 'oidc',
    async authenticate({ bearer }) {
      const token = bearer?.reveal();
      const unverified = token === undefined ? undefined : readClaims(token);
      // Whose it says it is: with several kinds of tokens in use, that is what tells them apart.
      if (token === undefined || !isOneOf(unverified?.iss, options.issuers)) return undefined;
      const payload = await verify(token, source);
      const claims = parseClaims(Buffer.from(payload).toString('utf8'));
      if (claims === undefined) throw refuseCredential('token claims', 'must be a JSON object');
      assertClaims(claims, options, deps.clock.now());
      return { id: identityOf(claims, options), method: 'oidc', detail: { issuer: String(claims.iss) } };
    },
    close: () => source.close(),
  };
}

async function verify(token: string, source: KeySource): Promise<Uint8Array> {
  try {
    return await (await source.keys()).verify(token);
  } catch (caught) {
    if (AgentError.from(caught).field !== 'token key') throw caught;
    // The issuer may have turned its key since we looked.
    return (await source.keys(true)).verify(token);
  }
}

/** What RFC 7519 leaves to whoever takes a token: here issuer, audience and end must be there, and every time be a whole second. */
function assertClaims(claims: Claims, { issuers, audiences }: OidcOptions, now: number): void {
  const nowSeconds = now / 1_000;
  if (!isOneOf(claims.iss, issuers)) throw refuseCredential('token issuer', `must be ${issuers.join(' or ')}`);
  const aud = Array.isArray(claims.aud) ? claims.aud : [claims.aud];
  if (!aud.some((each) => isOneOf(each, audiences))) throw refuseCredential('token audience', `must be ${audiences.join(' or ')}`);
  const exp = seconds(claims, 'exp');
  if (exp === undefined) throw refuseCredential('token exp', 'must be there');
  if (nowSeconds >= exp) throw refuseCredential('token exp', `must not be past: it was ${new Date(exp * 1_000).toISOString()}`);
  for (const claim of ['nbf', 'iat'] as const) {
    const at = seconds(claims, claim);
    if (at !== undefined && at > nowSeconds + SKEW_SECONDS) {
      throw refuseCredential(`token ${claim}`, `must not be ahead: it is ${new Date(at * 1_000).toISOString()}`);
    }
  }
}

function seconds(claims: Claims, name: 'exp' | 'nbf' | 'iat'): number | undefined {
  const value = claims[name];
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > LAST_SECOND) {
    throw refuseCredential(`token ${name}`, 'must be a whole number of seconds');
  }
  return value;
}

function identityOf(claims: Claims, options: OidcOptions) {
  const claim = options.spiffeIdClaim ?? 'sub';
  const value = Object.hasOwn(claims, claim) ? claims[claim] : undefined;
  if (typeof value !== 'string') throw refuseCredential(`token ${claim}`, 'must be a text');
  return options.spiffeIdClaim === undefined ? serviceAccountIdentity(value, options) : ownIdentity(value, options);
}

function isOneOf(value: unknown, among: readonly string[]): boolean {
  return typeof value === 'string' && among.includes(value);
}
