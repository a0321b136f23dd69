import type { JoinTokenEntry } from '../../identity/join-token';

/** What has become of a join token. Each change is a new record, so that of several processes one makes it. */
export interface TokenUse {
  /** The key that the token is good for; undefined where it is free (again). */
  readonly bound?: TokenBinding | undefined;
  /** Deleted by a person, or with the certificates that it led to: never answered again. */
  readonly closed?: boolean;
  /** A nonce of the call that made this change, by which it knows itself again. */
  readonly by: string;
  /** The token's own end, epoch milliseconds. */
  readonly expiresAt: number;
}

export interface TokenBinding {
  /** SHA-256 over the SubjectPublicKeyInfo of the first request, lower-case hex. */
  readonly keySha256: string;
  /** Of the first redemption, epoch milliseconds. */
  readonly at: number;
  /** How often it was answered again since. */
  readonly answeredAgain: number;
}

/** Who shows a token. */
export interface TokenClaim {
  /** Of the key in the request, lower-case hex. */
  readonly keySha256: string;
  /** Of this call alone. */
  readonly by: string;
}

/** `another key` means that two machines hold the token. */
export type TokenRefusal = 'malformed' | 'unknown' | 'used' | 'expired' | 'deleted' | 'another key';

export type UseDecision =
  | { readonly kind: 'use'; readonly next: TokenUse }
  | { readonly kind: 'refused'; readonly why: TokenRefusal };

/** An answer that got lost is asked for again within seconds; a restart of the agent, or of the authority, takes minutes. */
const ANSWER_AGAIN_MS = 10 * 60_000;
const MAX_ANSWERED_AGAIN = 5;

/**
 * What a claim makes of a token: the first key binds it; the same key is answered again, for 10 minutes from then, never past the token's
 * own end, and at most 5 times. Another key is refused whenever it comes.
 *
 * @param now  Epoch milliseconds. A clock that was set back by more than 10 minutes ends the time too.
 */
export function decideUse(
  entry: JoinTokenEntry,
  use: TokenUse | undefined,
  claim: TokenClaim,
  now: number,
): UseDecision {
  const bound = use?.bound;
  if (bound && bound.keySha256 !== claim.keySha256) return refused('another key');
  if (use?.closed) return refused('deleted');
  if (entry.expiresAt <= now) return refused('expired');
  const next = { by: claim.by, expiresAt: entry.expiresAt };
  if (!bound)
    return {
      kind: 'use',
      next: { ...next, bound: { keySha256: claim.keySha256, at: now, answeredAgain: 0 } },
    };
  if (Math.abs(now - bound.at) >= ANSWER_AGAIN_MS || bound.answeredAgain >= MAX_ANSWERED_AGAIN)
    return refused('used');
  return {
    kind: 'use',
    next: { ...next, bound: { ...bound, answeredAgain: bound.answeredAgain + 1 } },
  };
}

/**
 * The use that gives a token back after a call that came to nothing before a certificate was signed; undefined where another call has come
 * since, which may have got one. What was answered before stays counted.
 */
export function decideGiveBack(
  use: TokenUse | undefined,
  { by }: TokenClaim,
): TokenUse | undefined {
  if (!use?.bound || use.closed || use.by !== by) return undefined;
  const { answeredAgain } = use.bound;
  const bound =
    answeredAgain === 0 ? undefined : { ...use.bound, answeredAgain: answeredAgain - 1 };
  return { by: `${by} given back`, expiresAt: use.expiresAt, bound };
}

/** The use that closes a token for ever; undefined where it is closed. */
export function decideClose(
  entry: JoinTokenEntry,
  use: TokenUse | undefined,
  by: string,
): TokenUse | undefined {
  return use?.closed
    ? undefined
    : { bound: use?.bound, closed: true, by, expiresAt: entry.expiresAt };
}

function refused(why: TokenRefusal): UseDecision {
  return { kind: 'refused', why };
}
