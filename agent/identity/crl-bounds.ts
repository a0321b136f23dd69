/**
 * Certificates that one revocation list names at the most: what an authority writes and an agent reads. With more of them to revoke another
 * root is the better way.
 */
export const MAX_CRL_ENTRIES = 500_000;
/** An entry with a serial number of 20 octets, GeneralizedTime and a reason takes 55. */
export const MAX_ENTRY_BYTES = 64;
