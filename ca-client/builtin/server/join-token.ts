import type { Deps } from '../../../agent/base/deps';
import { formatSpiffeId } from '../../../agent/identity/spiffe-id';
import { JOIN_TOKEN_PREFIX } from '../store/join-tokens';
import type { CaStore } from '../store/store';
import { type Authenticator, ownIdentity, refuseCredential, type TrustDomains } from './authenticator';

export interface JoinTokenOptions extends TrustDomains {
  readonly store: Pick<CaStore, 'redeemJoinToken'>;
}

/**
 * One-time tokens of `keyturn ca token create`: how a machine gets its first certificate. A token is used up by being judged here, so a
 * request must have been looked at before; one for somebody else's identity still costs it.
 */
export function createJoinTokenAuthenticator(options: JoinTokenOptions, { clock }: Pick<Deps, 'clock'>): Authenticator {
  return {
    name: 'join-token',
    async authenticate({ bearer }) {
      if (bearer === undefined || !bearer.reveal().startsWith(JOIN_TOKEN_PREFIX)) return undefined;
      const redemption = await options.store.redeemJoinToken(bearer, clock.now());
      if (redemption.kind === 'refused') throw refuseCredential('join token', `must be good for a certificate, not ${redemption.why}`);
      return { id: ownIdentity(formatSpiffeId(redemption.id), options), method: 'join-token', detail: {} };
    },
  };
}
