import type { Watched } from '../base/watched';
import type { JwtKey } from './spiffe-bundle';
import type { SpiffeId } from './spiffe-id';

/** What a JWT-SVID says. @see JWT-SVID section 3. */
export interface JwtSvidClaims {
  readonly id: SpiffeId;
  /** For whom it is; at least one. */
  readonly audience: readonly string[];
  /** Epoch milliseconds. */
  readonly issuedAt: number;
  readonly expiresAt: number;
}

/** Signs JWT-SVIDs of one trust domain. */
export interface JwtAuthority {
  /** What they are verified by: the key that signs, those whose tokens may still be valid, and the one that signs next. */
  readonly keys: Watched<readonly JwtKey[]>;
  /** @returns JWS in compact form. It is a credential: it goes to the workload and nowhere else. */
  sign(claims: JwtSvidClaims): string;
  /** Looks for keys that another process has made a moment ago. Never throws. */
  refresh(): Promise<void>;
  close(): Promise<void>;
}

/** A token that was verified. */
export interface VerifiedJwt {
  readonly id: SpiffeId;
  readonly claims: Readonly<Record<string, unknown>>;
}

/** The longest life that a JWT-SVID of ours may have; its key is published for as long after its last signature. */
export const MAX_JWT_TTL_MS = 24 * 3_600_000;
