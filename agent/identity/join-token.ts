import { createHash, randomBytes } from 'node:crypto';
import { Secret } from '../base/secret';

/** Every join token begins with it, and no JWT does; it lets secret scanners know one. */
export const JOIN_TOKEN_PREFIX = 'kt1_';
/** The prefix and 32 random bytes, base64url without padding. */
const TOKEN = new RegExp(`^${JOIN_TOKEN_PREFIX}[A-Za-z0-9_-]{43}$`);

/** What a store keeps of a token, under its hash. */
export interface JoinTokenEntry {
  /** The SPIFFE ID that it is good for. */
  readonly id: string;
  /** Epoch milliseconds. */
  readonly createdAt: number;
  readonly expiresAt: number;
}

/** As `joinTokenHash` for a certificate that has ended and is good once more: no token has such a text. */
export function expiredCertificateHash(serial: string): string {
  return createHash('sha256').update(`expired certificate ${serial}`).digest('hex');
}

/** A token that nobody has seen yet: 256 random bits. */
export function generateJoinToken(): Secret<string> {
  return new Secret(`${JOIN_TOKEN_PREFIX}${randomBytes(32).toString('base64url')}`);
}

/**
 * Under which name a token is kept: SHA-256 over its text, lower-case hex; undefined for what is no token. Plain SHA-256 does, since nobody
 * can guess 256 random bits, and looking a hash up tells nothing about the token by how long it takes.
 */
export function joinTokenHash(token: Secret<string>): string | undefined {
  const text = token.reveal();
  return TOKEN.test(text) ? createHash('sha256').update(text).digest('hex') : undefined;
}
