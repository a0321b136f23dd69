import { hash } from 'node:crypto';
import type { Deps } from '../../base/deps';
import { AgentError } from '../../base/errors';
import { type Claims, parseClaims, readClaims } from '../../jwt/jwt-claims';
import { TOKEN_ALGORITHMS, type TokenAlgorithm } from '../../jwt/key-set';
import { type KeyPlace, type KeySource, openKeySource } from '../../jwt/key-source';
import {
  type Authenticator,
  ownIdentity,
  refuseCredential,
  serviceAccountIdentity,
  type TrustDomains,
} from './authenticator';
import { assertClaims, isOneOf } from './token-claims';
import { Verdicts } from './verdicts';

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

/** How long a token that does not verify is remembered. */
const NO_MS = 10_000;

/**
 * Tokens of OpenID Connect issuers, service account tokens among them, verified here with the issuers' public keys. Nothing in a token says
 * where to find its key: `jwk`, `jku`, `x5u` and `x5c` are not looked at, and a `crit` that nobody here understands refuses it. Claims come
 * before the signature, since they cost nothing.
 *
 * @throws AgentError ERR_CONFIG | ERR_PARSE | ERR_INPUT where the keys cannot be read.
 * @see RFC 7519 section 4.1; RFC 8725.
 */
export async function createOidcAuthenticator(
  options: OidcOptions,
  deps: Deps,
): Promise<Authenticator> {
  const source = await openKeySource(options, options.algorithms ?? TOKEN_ALGORITHMS, deps);
  // A token that verifies is verified each time: its key may be withdrawn.
  const verdicts = new Verdicts<Uint8Array>(
    { yesUntilAt: (_, now) => now, noMs: NO_MS },
    deps.clock,
  );
  return {
    name: 'oidc',
    async authenticate({ bearer }) {
      const token = bearer?.reveal();
      const unverified = token === undefined ? undefined : readClaims(token);
      // Whose it says it is: with several kinds of tokens in use, that is what tells them apart.
      if (
        token === undefined ||
        unverified === undefined ||
        !isOneOf(unverified.iss, options.issuers)
      )
        return undefined;
      assertClaims(unverified, options, deps.clock.now());
      const payload = await verdicts.of(hash('sha256', token, 'base64'), () =>
        verify(token, source),
      );
      const claims = parseClaims(Buffer.from(payload).toString('utf8'));
      if (claims === undefined) throw refuseCredential('token claims', 'must be a JSON object');
      assertClaims(claims, options, deps.clock.now());
      return {
        id: identityOf(claims, options),
        method: 'oidc',
        detail: { issuer: String(claims.iss) },
      };
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

function identityOf(claims: Claims, options: OidcOptions) {
  const claim = options.spiffeIdClaim ?? 'sub';
  const value = Object.hasOwn(claims, claim) ? claims[claim] : undefined;
  if (typeof value !== 'string') throw refuseCredential(`token ${claim}`, 'must be a text');
  return options.spiffeIdClaim === undefined
    ? serviceAccountIdentity(value, options)
    : ownIdentity(value, options);
}
