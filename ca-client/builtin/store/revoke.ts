import type { IssuedEntry, Revocation, RevocationReason } from './store';

/** What is kept of certificates once they are revoked, by serial. */
export function revocationsOf(entries: readonly IssuedEntry[], reason: RevocationReason, revokedAt: number): [string, Revocation][] {
  return entries.map(({ serial, id, issuerKeyId, notAfterAt }) => [serial, { serial, id, issuerKeyId, notAfterAt, revokedAt, reason }]);
}
