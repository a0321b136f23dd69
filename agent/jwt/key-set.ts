import type { webcrypto } from 'node:crypto';
import type { CompactVerifyGetKey, JSONWebKeySet, JWK } from 'jose';
import { AgentError, invalid } from '../base/errors';
import { signatureWeight } from '../identity/signature-checker';
import { hasRocaMark } from './roca';

/** Signatures that a JWT-SVID may have. @see JWT-SVID section 2.1. */
export const SVID_ALGORITHMS = [
  'ES256',
  'ES384',
  'ES512',
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
] as const;

/**
 * Signatures that a token may have: asymmetric ones only, so that a public key can never be mistaken for a shared secret (RFC 8725 section
 * 2.1), and no RSA encryption. Which of them a key may make is the key's to say.
 */
export const TOKEN_ALGORITHMS = [...SVID_ALGORITHMS, 'EdDSA', 'Ed25519'] as const;
export type TokenAlgorithm = (typeof TOKEN_ALGORITHMS)[number];

const MAX_KEYS = 100;
/** What trying keys for a token that names none may cost, in signatures of P-256. Issuers that leave the name out have one or two. */
const GUESSES = 32;
/** As for certificates: what is weaker can be broken, and what is larger is slow by design. */
const RSA_OCTETS = { least: 256, most: 1_024 } as const;
const CURVES: Readonly<Record<string, readonly string[]>> = {
  EC: ['P-256', 'P-384', 'P-521'],
  OKP: ['Ed25519'],
};

/** The public keys of token issuers. */
export interface KeySet {
  /** Key identifiers, for people. */
  readonly kids: readonly string[];
  /**
   * Verifies a JWS in compact form.
   *
   * @returns Its payload.
   * @throws  AgentError ERR_TOKEN; with field `token key` where no key of ours is meant.
   */
  verify(token: string): Promise<Uint8Array>;
}

/**
 * Reads a JWK set. A key that is of no use here (encryption, another curve, an unknown kind) is passed over, as a set may serve others too.
 * One that should not be there at all, a private or a symmetric one, refuses the set: it is somebody's secret.
 *
 * @param algorithms  Those that are taken, a part of `TOKEN_ALGORITHMS`.
 * @throws            AgentError ERR_PARSE.
 * @see RFC 7517 section 5; RFC 8725 sections 3.1 and 3.2.
 */
export async function parseKeySet(
  text: string,
  field: string,
  algorithms: readonly TokenAlgorithm[],
): Promise<KeySet> {
  const all = readKeys(text, field);
  if (all.length > MAX_KEYS)
    throw invalid('ERR_PARSE', field, `must not hold more than ${MAX_KEYS} keys`);
  if (all.some((key) => 'd' in key || 'k' in key || key.kty === 'oct')) {
    throw invalid('ERR_PARSE', field, 'must hold public keys only', {
      hint: 'remove the private key, and stop using it',
    });
  }
  const keys = all.filter(isUsable);
  if (keys.length === 0)
    throw invalid('ERR_PARSE', field, 'must hold a key that verifies signatures');
  // Loaded by a server that judges such tokens, and by nothing else.
  const jose = await import('jose');
  const find = jose.createLocalJWKSet({ keys: [...keys] });
  return {
    kids: keys.map(({ kid }) => kid ?? ''),
    verify: async (token) => {
      try {
        return await verify(jose, token, find, algorithms);
      } catch (caught) {
        // Jose's messages are about the form of the token and never hold a part of it.
        const unknown = caught instanceof jose.errors.JWKSNoMatchingKey;
        const rule = unknown
          ? 'must be one of the issuer’s'
          : caught instanceof jose.errors.JOSEError
            ? caught.code
            : 'must verify';
        throw new AgentError('ERR_TOKEN', `${unknown ? 'token key' : 'token'}: ${rule}`, {
          field: unknown ? 'token key' : 'token',
          rule,
          retry: 'slow',
          cause: caught,
        });
      }
    },
  };
}

type Jose = typeof import('jose');

async function verify(
  jose: Jose,
  token: string,
  find: CompactVerifyGetKey,
  algorithms: readonly TokenAlgorithm[],
): Promise<Uint8Array> {
  const options = { algorithms: [...algorithms] };
  try {
    const { payload, protectedHeader } = await jose.compactVerify(token, find, options);
    // Jose knows `b64`, which makes the payload something else than it looks like. Here nothing is critical that can be understood.
    if (protectedHeader.crit !== undefined) throw new jose.errors.JOSENotSupported('crit');
    return payload;
  } catch (caught) {
    if (!(caught instanceof jose.errors.JWKSMultipleMatchingKeys)) throw caught;
    // A token without a key identifier: any of the keys that fit may have made it.
    let left = GUESSES;
    for await (const key of caught) {
      left -= weightOf(key);
      if (left < 0) break;
      const found = await jose.compactVerify(token, key, options).catch(() => undefined);
      if (found !== undefined && found.protectedHeader.crit === undefined) return found.payload;
    }
    throw new jose.errors.JWSSignatureVerificationFailed();
  }
}

function weightOf({ algorithm }: webcrypto.CryptoKey): number {
  const { modulusLength, namedCurve } = algorithm as {
    readonly modulusLength?: number;
    readonly namedCurve?: string;
  };
  if (modulusLength !== undefined) return signatureWeight({ kind: 'rsa', bits: modulusLength });
  return signatureWeight({
    kind: 'ec',
    bits: Number(/^P-(\d+)$/.exec(namedCurve ?? '')?.[1] ?? 256),
  });
}

function readKeys(text: string, field: string): readonly JWK[] {
  let set: Partial<JSONWebKeySet> | undefined;
  try {
    set = JSON.parse(text);
  } catch (cause) {
    throw invalid('ERR_PARSE', field, 'must be JSON', { cause });
  }
  const keys = set?.keys;
  if (!Array.isArray(keys) || keys.some((key) => typeof key !== 'object' || key === null)) {
    throw invalid('ERR_PARSE', field, 'must be a JWK set: {"keys": [...]}');
  }
  return keys;
}

function isUsable(key: JWK): boolean {
  if (key.use !== undefined && key.use !== 'sig') return false;
  if (key.key_ops !== undefined && !(Array.isArray(key.key_ops) && key.key_ops.includes('verify')))
    return false;
  if (key.kty === 'RSA') return isFitRsa(key);
  return CURVES[String(key.kty)]?.includes(String(key.crv)) ?? false;
}

function isFitRsa({ n, e }: JWK): boolean {
  const modulus = typeof n === 'string' ? Buffer.from(n, 'base64url') : Buffer.alloc(0);
  if (modulus.length < RSA_OCTETS.least || modulus.length > RSA_OCTETS.most || e !== 'AQAB')
    return false;
  return !hasRocaMark(BigInt(`0x${modulus.toString('hex')}`));
}
