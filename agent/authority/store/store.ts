import type { Secret } from '../../base/secret';
import type { SpiffeId } from '../../identity/spiffe-id';
import type { TokenClaim, TokenRefusal } from './token-use';

/** One certificate as the register keeps it until it expires. */
export interface IssuedEntry {
  /** Lower-case hex, as `Certificate.serial`. */
  readonly serial: string;
  /** Whom it is for: the SPIFFE ID, or of a TLS server of ours its first name. */
  readonly id: string;
  /** SHA-256 over the SubjectPublicKeyInfo, lower-case hex. */
  readonly keySha256: string;
  /** Epoch milliseconds. */
  readonly issuedAt: number;
  readonly notAfterAt: number;
  /** Who signed it: the signer's key identifier, lower-case hex. */
  readonly issuerKeyId: string;
  /** The key of the root that its chain led to when it was signed: SHA-256 over the SubjectPublicKeyInfo, lower-case hex. */
  readonly rootKeySha256: string;
  /** The roots that went out with it, by the beginning of their SHA-256 as `certificateId`; absent for a TLS server of ours. */
  readonly handedRoots?: readonly string[];
  /** The serial of the certificate that proved the caller; absent where a token did. */
  readonly provenBy?: string;
  /** Until when it proves its holder once more after its end, epoch milliseconds. */
  readonly renewableUntilAt?: number | undefined;
}

/** Which certificates are meant; all that is given must hold. Expired ones are found only where they are asked for. */
export interface IssuedQuery {
  /** Those, too, that have ended and still prove their holder once. */
  readonly renewable?: boolean;
  /** Whatever concerns these serials and key hashes: certificates of that serial or key, and those that they got. */
  readonly about?: ReadonlySet<string>;
  readonly serial?: string;
  readonly id?: string;
  readonly issuerKeyId?: string;
  readonly rootKeySha256?: string;
}

/** Why a certificate is revoked: the names of RFC 5280 section 5.3.1 that fit a workload's. */
export const REVOCATION_REASONS = {
  unspecified: 0,
  keyCompromise: 1,
  affiliationChanged: 3,
  superseded: 4,
  cessationOfOperation: 5,
  privilegeWithdrawn: 9,
} as const;
export type RevocationReason = keyof typeof REVOCATION_REASONS;

/** A certificate that must not be believed any more, kept until it would have expired. */
export interface Revocation {
  readonly serial: string;
  readonly id: string;
  readonly issuerKeyId: string;
  /** Epoch milliseconds. */
  readonly notAfterAt: number;
  readonly revokedAt: number;
  readonly reason: RevocationReason;
  /** As in `IssuedEntry`; it is kept until then. */
  readonly renewableUntilAt?: number | undefined;
}

/** A certificate that has ended and is to prove its holder once more. */
export interface ExpiredCertificate {
  readonly serial: string;
  readonly id: SpiffeId;
  /** Epoch milliseconds. */
  readonly renewableUntilAt: number;
}

/** When nobody needs to know of a certificate any more, epoch milliseconds. */
export function neededUntilAt({
  notAfterAt,
  renewableUntilAt,
}: Pick<IssuedEntry, 'notAfterAt' | 'renewableUntilAt'>): number {
  return Math.max(notAfterAt, renewableUntilAt ?? 0);
}

/** What a join token that was shown is good for. `why` is for the operator's log; the caller learns no more than that it was refused. */
export type Redemption =
  | { readonly kind: 'good'; readonly id: SpiffeId }
  /** `again`: how often the same key was answered before. */
  | { readonly kind: 'redeemed'; readonly id: SpiffeId; readonly again: number }
  | { readonly kind: 'refused'; readonly why: TokenRefusal };

/** What one reading of the register found. */
export interface IssuedReading {
  readonly entries: readonly IssuedEntry[];
  /** Whether they are all that a query finds, not only what came since. */
  readonly isWhole: boolean;
  /** Where the next may go on: how many octets of each file are read. */
  readonly end: ReadonlyMap<string, number>;
}

/** Which join tokens are meant; all that is given must hold. */
export interface JoinTokenQuery {
  readonly token?: Secret<string>;
  readonly id?: string;
  /** Leaves tokens out that have got no certificate yet. */
  readonly boundOnly?: boolean;
}

/**
 * What an authority must not forget: join tokens, the certificates that it has signed, those that it has revoked, and the number of its
 * last CRL. Any number of processes may hold one store open; all methods may be called concurrently. What a method has resolved is durable.
 *
 * @example
 *   const { kind } = await store.redeemJoinToken(token, claim, clock.now());
 *   if (kind === 'redeemed') await store.recordIssued(entry); // Then the certificate may go out.
 */
export interface CaStore {
  /**
   * Enters a certificate before it is sent: what is not in the register can neither be revoked by its identity nor be counted when a root
   * retires.
   *
   * @throws AgentError ERR_CA_STATE (retry soon): it must not be sent.
   */
  recordIssued(entry: IssuedEntry): Promise<void>;
  /** Certificates that are valid at `now`, in no order, revoked ones included. */
  issued(query: IssuedQuery, now: number): Promise<readonly IssuedEntry[]>;
  /**
   * As `issued`, but only what came since an earlier reading with the same query if the store knows. An entry may be in two readings;
   * what has ended or was revoked since is in the earlier one.
   *
   * @param since  `end` of that reading.
   */
  issuedSince(
    query: IssuedQuery,
    now: number,
    since: IssuedReading['end'] | undefined,
  ): Promise<IssuedReading>;
  /** Makes a token that is good for one key of `id` until it expires. It can be read this once; only its hash is kept. */
  createJoinToken(id: SpiffeId, ttlSeconds: number, now: number): Promise<Secret<string>>;
  /** What a claim would redeem a token for now; uses nothing up. @throws AgentError ERR_CA_STATE (retry soon) where that is not known. */
  findJoinToken(token: Secret<string>, claim: TokenClaim, now: number): Promise<Redemption>;
  /**
   * Binds a token to the key of the claim, or counts one more answer to that key, as `decideUse` says. One record decides, for all processes
   * and over restarts. So verify the request first and redeem last.
   *
   * @throws AgentError ERR_CA_STATE (retry soon) where the answer is not known; the token may be bound.
   */
  redeemJoinToken(token: Secret<string>, claim: TokenClaim, now: number): Promise<Redemption>;
  /** Takes a redemption back after which no certificate was signed; of no effect where another call has redeemed it since. */
  giveBackJoinToken(token: Secret<string>, claim: TokenClaim): Promise<void>;
  /**
   * As `redeemJoinToken` for a certificate that has ended, which is good for one renewal: bound to the key of that one, answered again for it
   * alone, and closed with the tokens of its identity.
   */
  redeemExpired(expired: ExpiredCertificate, claim: TokenClaim, now: number): Promise<Redemption>;
  giveBackExpired(expired: ExpiredCertificate, claim: TokenClaim): Promise<void>;
  /** Closes tokens for ever. @returns How many were open and not over. */
  deleteJoinTokens(query: JoinTokenQuery, now: number): Promise<number>;
  /** Whether the register takes entries, without leaving any. @throws AgentError ERR_CA_STATE (retry soon): it does not. */
  probe(): Promise<void>;
  /**
   * Revokes the certificates that the query finds, until no more are found, so that one which was signed meanwhile is revoked as well. The
   * join tokens that led to them are closed.
   *
   * @returns Those that were not revoked before.
   */
  revoke(query: IssuedQuery, reason: RevocationReason, now: number): Promise<readonly Revocation[]>;
  /** Revocations of certificates that have not expired, or may be renewed all the same, in an order that stays while they do. */
  revocations(now: number): Promise<readonly Revocation[]>;
  /** Calls back when revocations may have come or gone, by any process, and once when it begins to watch. Returns the function that stops it. */
  onRevocation(listener: () => void): () => void;
  /** A number for a CRL, higher than every one before, in any process. */
  nextCrlNumber(): Promise<number>;
  /** Drops what has expired. Called now and then by a server; never needed for correctness. */
  sweep(now: number): Promise<void>;
  close(): Promise<void>;
}

/** Whether an entry is meant by a query and was not over at `now`. */
export function matches(entry: IssuedEntry, query: IssuedQuery, now: number): boolean {
  return (
    (query.renewable ? neededUntilAt(entry) : entry.notAfterAt) > now &&
    (query.about === undefined ||
      [entry.serial, entry.keySha256, entry.provenBy].some(
        (each) => each !== undefined && query.about!.has(each),
      )) &&
    (query.serial === undefined || query.serial === entry.serial) &&
    (query.id === undefined || query.id === entry.id) &&
    (query.issuerKeyId === undefined || query.issuerKeyId === entry.issuerKeyId) &&
    (query.rootKeySha256 === undefined || query.rootKeySha256 === entry.rootKeySha256)
  );
}
