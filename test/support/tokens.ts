import { createHmac, generateKeyPairSync, type KeyObject, randomUUID, sign } from 'node:crypto';

/** Signs JWTs exactly as told, right unless `options` say otherwise. */
export interface TokenIssuer {
  readonly privateKey: KeyObject;
  readonly kid: string;
  /** A JWK set of its public key, JSON. */
  jwks(): string;
  token(options?: TokenOptions): string;
}

export interface TokenOptions {
  /** Instead of the usual ones; undefined takes one away. */
  readonly claims?: Readonly<Record<string, unknown>>;
  readonly header?: Readonly<Record<string, unknown>>;
  /** Signs the two parts in another way. */
  readonly signature?: (signingInput: string) => Uint8Array;
}

export const TEST_ISSUER = 'https://issuer.test';
export const TEST_AUDIENCE = 'istio-ca';
export const TEST_SUBJECT = 'system:serviceaccount:shop:cart';

const CURVES = { ES256: ['P-256', 'sha256'], ES384: ['P-384', 'sha384'] } as const;

/** An issuer with a new key. Tokens are good for an hour around the machine's clock. */
export function makeTokenIssuer(
  algorithm: 'ES256' | 'ES384' | 'RS256' | 'EdDSA' = 'ES256',
): TokenIssuer {
  const kid = randomUUID();
  const { publicKey, privateKey } =
    algorithm === 'RS256'
      ? generateKeyPairSync('rsa', { modulusLength: 2048 })
      : algorithm === 'EdDSA'
        ? generateKeyPairSync('ed25519')
        : generateKeyPairSync('ec', { namedCurve: CURVES[algorithm][0] });
  const natural = (input: string): Uint8Array =>
    algorithm === 'EdDSA'
      ? sign(null, Buffer.from(input), privateKey)
      : algorithm === 'RS256'
        ? sign('sha256', Buffer.from(input), privateKey)
        : sign(CURVES[algorithm][1], Buffer.from(input), {
            key: privateKey,
            dsaEncoding: 'ieee-p1363',
          });
  return {
    privateKey,
    kid,
    jwks: () =>
      JSON.stringify({
        keys: [{ ...publicKey.export({ format: 'jwk' }), kid, alg: algorithm, use: 'sig' }],
      }),
    token: (options = {}) => {
      const now = Math.floor(Date.now() / 1_000);
      const claims = {
        iss: TEST_ISSUER,
        aud: [TEST_AUDIENCE],
        sub: TEST_SUBJECT,
        iat: now,
        nbf: now,
        exp: now + 3_600,
        ...options.claims,
      };
      const header = { alg: algorithm, kid, typ: 'JWT', ...options.header };
      return compact(header, claims, options.signature ?? natural);
    },
  };
}

/** `HEADER.CLAIMS.SIGNATURE`. */
export function compact(
  header: object,
  claims: object,
  signature: (signingInput: string) => Uint8Array,
): string {
  const input = [header, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.');
  return `${input}.${Buffer.from(signature(input)).toString('base64url')}`;
}

/** HMAC with any bytes as the shared secret. */
export const hmac = (secret: string | Buffer) => (input: string) =>
  createHmac('sha256', secret).update(input).digest();
