import type { CaStore, IssuedEntry, IssuedQuery, Revocation, RevocationReason } from './store';

/** What is kept of certificates once they are revoked, by serial. */
export function revocationsOf(
  entries: readonly IssuedEntry[],
  reason: RevocationReason,
  revokedAt: number,
): [string, Revocation][] {
  return entries.map(({ serial, id, issuerKeyId, notAfterAt, renewableUntilAt }) => [
    serial,
    {
      serial,
      id,
      issuerKeyId,
      notAfterAt,
      ...(renewableUntilAt !== undefined && { renewableUntilAt }),
      revokedAt,
      reason,
    },
  ]);
}

/**
 * Closes the join tokens that may have led to certificates which are being revoked: all of their identities that were used, whether or not a
 * certificate was registered. By serial number too: what was revoked may have succeeded the certificate of a token.
 */
export async function closeTokensOf(
  store: Pick<CaStore, 'deleteJoinTokens'>,
  query: IssuedQuery,
  entries: readonly IssuedEntry[],
  now: number,
): Promise<void> {
  const ids = new Set([
    ...(query.id === undefined ? [] : [query.id]),
    ...entries.map(({ id }) => id),
  ]);
  for (const id of ids) await store.deleteJoinTokens({ id, boundOnly: true }, now);
}
