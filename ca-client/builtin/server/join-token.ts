import type { Deps } from '../../../agent/base/deps';
import { formatSpiffeId, type SpiffeId } from '../../../agent/identity/spiffe-id';
import { JOIN_TOKEN_PREFIX } from '../store/join-tokens';
import type { CaStore, Redemption } from '../store/store';
import { type Authenticator, ownIdentity, refuseCredential, type TrustDomains } from './authenticator';

export interface JoinTokenOptions extends TrustDomains {
  readonly store: Pick<CaStore, 'findJoinToken' | 'redeemJoinToken'>;
}

/**
 * One-time tokens of `keyturn ca token create`: how a machine gets its first certificate. A token proves who calls, and is used up when the
 * request is found good.
 */
export function createJoinTokenAuthenticator(options: JoinTokenOptions, { clock }: Pick<Deps, 'clock'>): Authenticator {
  return {
    name: 'join-token',
    async authenticate({ bearer }) {
      if (bearer === undefined || !bearer.reveal().startsWith(JOIN_TOKEN_PREFIX)) return undefined;
      const id = idOf(await options.store.findJoinToken(bearer, clock.now()));
      return {
        id: ownIdentity(formatSpiffeId(id), options),
        method: 'join-token',
        detail: {},
        redeem: async () => void idOf(await options.store.redeemJoinToken(bearer, clock.now())),
      };
    },
  };
}

function idOf(redemption: Redemption): SpiffeId {
  if (redemption.kind === 'refused') throw refuseCredential('join token', `must be good for a certificate, not ${redemption.why}`);
  return redemption.id;
}
