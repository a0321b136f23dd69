import type { Token } from '../token';
import type { ClientCertificate } from './client-certificate';

/** What one call proves our identity with: at least one of the two. */
export interface Credentials {
  readonly token: Token | undefined;
  readonly certificate: ClientCertificate | undefined;
  /** For the log: which certificate it is. */
  readonly kind:
    | 'token'
    | 'token and provisioned certificate'
    | 'provisioned certificate'
    | 'token and own certificate'
    | 'own certificate'
    | 'expired certificate';
}

/** What there is and may be used: tokens that are not expired, certificates without an obstacle. */
export interface UsableCredentials {
  readonly token: Token | undefined;
  /** Of PROV_CERT: somebody put it there to be presented. */
  readonly provisioned: ClientCertificate | undefined;
  /** The one that this agent keeps in service, where the server takes it. */
  readonly own: ClientCertificate | undefined;
  /** The CA refused this very token before: it no longer believes it. */
  readonly tokenRefused: boolean;
  /** The token is good for one certificate, and may have got us the one that we have. */
  readonly tokenOnce: boolean;
  /** The CA refused the own certificate, and said so. */
  readonly ownRefused: boolean;
  /** One that this very CA issued to us and that has ended: some renew it once all the same. */
  readonly expired: ClientCertificate | undefined;
  /** The CA refused that. */
  readonly expiredRefused: boolean;
}

/**
 * The ways to prove ourselves, best first. A provisioned certificate goes along with the token, as upstream does; our own is for the time
 * without a usable token. The next ways are for servers that refuse the first: some end the handshake over a certificate that they
 * cannot verify, others no longer believe the token, or what signed the provisioned certificate. A token that was refused comes last until
 * it is replaced. A certificate that has ended comes after a token, but before a one-time token, which is likely to be that by which it came.
 * A one-time token is shown beside our own certificate only once the CA has refused that: used again, it would be a refusal
 * in the CA's log each time.
 *
 * @returns Empty where there is nothing to prove ourselves with.
 */
export function rankCredentials(usable: UsableCredentials): readonly Credentials[] {
  const ways = standingWays(usable);
  const { expired, expiredRefused, token, tokenOnce } = usable;
  if (!expired || usable.own) return ways;
  const last: Credentials = { token: undefined, certificate: expired, kind: 'expired certificate' };
  if (!token || !tokenOnce) return [...ways, last];
  // As with the own certificate: a token that is likely to be used up is shown only where that has been refused.
  return expiredRefused ? [...ways, last] : [last];
}

function standingWays(usable: UsableCredentials): readonly Credentials[] {
  const { token, provisioned, own, tokenRefused, tokenOnce, ownRefused } = usable;
  if (token && tokenRefused && (provisioned || own))
    return [
      ...standingWays({ ...usable, token: undefined }),
      ...standingWays({ ...usable, tokenRefused: false }),
    ];
  if (token && tokenOnce && own && !provisioned) {
    const way: Credentials = { token: undefined, certificate: own, kind: 'own certificate' };
    return ownRefused ? [way, { token, certificate: undefined, kind: 'token' }] : [way];
  }
  if (token && provisioned)
    return [
      { token, certificate: provisioned, kind: 'token and provisioned certificate' },
      { token, certificate: undefined, kind: 'token' },
    ];
  const byOwn: Credentials[] = own
    ? [{ token: undefined, certificate: own, kind: 'own certificate' }]
    : [];
  if (provisioned)
    return [
      { token: undefined, certificate: provisioned, kind: 'provisioned certificate' },
      ...byOwn,
    ];
  if (token && own)
    return [
      { token, certificate: undefined, kind: 'token' },
      { token, certificate: own, kind: 'token and own certificate' },
    ];
  if (token) return [{ token, certificate: undefined, kind: 'token' }];
  return byOwn;
}
