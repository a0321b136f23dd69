import { iso } from '../../base/iso';
import type { Claims } from '../../jwt/jwt-claims';
import { refuseCredential } from './authenticator';

/** How far clocks of issuers may be off. */
const SKEW_SECONDS = 60;
/** The last second that a Date can hold; what lies beyond is no instant. */
const LAST_SECOND = 8.64e12;

export interface ClaimRules {
  /** Values of `iss` that are taken, to the letter; undefined where none is known. */
  readonly issuers: readonly string[] | undefined;
  /** At least one of them must be in `aud`. */
  readonly audiences: readonly string[];
}

/**
 * What RFC 7519 leaves to whoever takes a token: here issuer, audience and end must be there, and every time be a whole second. It costs
 * nothing, so it comes before any signature and any question to others.
 *
 * @throws AgentError ERR_TOKEN with the claim and the rule.
 */
export function assertClaims(
  claims: Claims,
  { issuers, audiences }: ClaimRules,
  now: number,
): void {
  const nowSeconds = now / 1_000;
  if (issuers && !isOneOf(claims.iss, issuers))
    throw refuseCredential('token issuer', `must be ${issuers.join(' or ')}`);
  const aud = Array.isArray(claims.aud) ? claims.aud : [claims.aud];
  if (!aud.some((each) => isOneOf(each, audiences)))
    throw refuseCredential('token audience', `must be ${audiences.join(' or ')}`);
  const exp = seconds(claims, 'exp');
  if (exp === undefined) throw refuseCredential('token exp', 'must be there');
  if (nowSeconds >= exp)
    throw refuseCredential('token exp', `must not be past: it was ${iso(exp * 1_000)}`);
  for (const claim of ['nbf', 'iat'] as const) {
    const at = seconds(claims, claim);
    if (at !== undefined && at > nowSeconds + SKEW_SECONDS) {
      throw refuseCredential(`token ${claim}`, `must not be ahead: it is ${iso(at * 1_000)}`);
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

export function isOneOf(value: unknown, among: readonly string[]): boolean {
  return typeof value === 'string' && among.includes(value);
}
