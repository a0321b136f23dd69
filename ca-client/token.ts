import { AgentError, invalid } from '../agent/base/errors';
import { iso } from '../agent/base/iso';
import { readSmallFile } from '../agent/base/read-file';
import { Secret } from '../agent/base/secret';
import { readTokenClaims } from '../agent/jwt/token-claims';

/** A bearer token as it lies in its file, with what a JWT says of itself. None of that is proven: the CA judges. */
export interface Token {
  readonly value: Secret<string>;
  /** Epoch milliseconds; undefined where it does not say. */
  readonly expiresAt: number | undefined;
  /** Whom it was made for, e.g. `istio-ca`; empty where it does not say. */
  readonly audiences: readonly string[];
}

const MAX_BYTES = 64 * 1024;
/** As far as a Date reaches (ECMA-262 section 21.4.1.1): some tokens say 1e308. */
const MAX_SECONDS = 8.64e12;
/** RFC 6750 section 2.1, without the padding rule: what may stand in a header, and nothing that could end one. */
const BEARER = /^[A-Za-z0-9\-._~+/=]+$/;

/**
 * Reads a token, every time anew: kubelets replace it, and a token that was kept in memory is the classic way to fail after an hour.
 *
 * @throws AgentError ERR_TOKEN (retry soon, for files are replaced while we look): missing, empty, larger than 64 KiB, or with characters
 *         that no token has. The message never shows any of it.
 */
export async function readToken(path: string): Promise<Token> {
  const field = `token ${path}`;
  const bytes = await readSmallFile(path, { field, code: 'ERR_TOKEN', maxBytes: MAX_BYTES });
  const text = bytes.toString('latin1').trim();
  bytes.fill(0);
  if (text === '') throw invalid('ERR_TOKEN', field, 'must not be empty', { retry: 'soon' });
  if (!BEARER.test(text))
    throw invalid('ERR_TOKEN', field, 'must hold one bearer token and nothing else', {
      retry: 'soon',
    });
  return { value: new Secret(text), ...readClaims(text) };
}

/** Whether the token is dead by this clock. `leewayMs` is for a clock that runs ahead of the CA's. */
export function isExpired(token: Token, now: number, leewayMs = 0): boolean {
  return token.expiresAt !== undefined && now >= token.expiresAt + leewayMs;
}

/** As far as it is a JWT: what cannot be read is left to the CA. */
function readClaims(text: string): Pick<Token, 'expiresAt' | 'audiences'> {
  const { exp, aud } = readTokenClaims(text) ?? {};
  const audiences = Array.isArray(aud) ? aud : [aud];
  return {
    expiresAt: typeof exp === 'number' && Math.abs(exp) <= MAX_SECONDS ? exp * 1_000 : undefined,
    audiences: audiences.filter((each): each is string => typeof each === 'string'),
  };
}

/** What is wrong when there is nothing to prove ourselves with. */
export function expiredTokenError(path: string, token: Token): AgentError {
  const when = iso(token.expiresAt ?? 0);
  return new AgentError(
    'ERR_TOKEN',
    `sign: the token ${path} expired at ${when} and was not replaced`,
    {
      retry: 'slow',
      hint: 'replace the token (the kubelet does it in a pod); a new one is used at once',
    },
  );
}
