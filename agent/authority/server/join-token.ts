import { randomBytes } from 'node:crypto';
import type { Deps } from '../../base/deps';
import type { Secret } from '../../base/secret';
import { JOIN_TOKEN_PREFIX, joinTokenHash } from '../../identity/join-token';
import { formatSpiffeId } from '../../identity/spiffe-id';
import type { CaStore, Redemption } from '../store/store';
import type { TokenClaim } from '../store/token-use';
import {
  type Authenticator,
  ownIdentity,
  refuseCredential,
  StolenCredential,
  type TrustDomains,
} from './authenticator';

export interface JoinTokenOptions extends TrustDomains {
  readonly store: Pick<CaStore, 'findJoinToken' | 'redeemJoinToken' | 'giveBackJoinToken'>;
}

/**
 * One-time tokens of `keyturn ca token create`: how a machine gets its first certificate. A token proves who calls, and is bound to the key
 * of the first good request: that key is answered again for a while, another one is refused.
 */
export function createJoinTokenAuthenticator(
  options: JoinTokenOptions,
  { clock }: Pick<Deps, 'clock'>,
): Authenticator {
  const { store } = options;
  return {
    name: 'join-token',
    async authenticate({ bearer, keySha256 }) {
      if (bearer === undefined || !bearer.reveal().startsWith(JOIN_TOKEN_PREFIX)) return undefined;
      const claim: TokenClaim = { keySha256, by: randomBytes(12).toString('hex') };
      const detail = tokenDetail(bearer);
      const { id } = accepted(await store.findJoinToken(bearer, claim, clock.now()), detail);
      return {
        id: ownIdentity(formatSpiffeId(id), options),
        method: 'join-token',
        detail,
        redeem: async () => {
          const redeemed = accepted(
            await store.redeemJoinToken(bearer, claim, clock.now()),
            detail,
          );
          const again = redeemed.kind === 'redeemed' ? redeemed.again : 0;
          return {
            detail: again === 0 ? {} : { again: String(again) },
            event: again === 0 ? undefined : 'join-token-answered-again',
            giveBack: () => store.giveBackJoinToken(bearer, claim),
          };
        },
      };
    },
  };
}

/** Enough of its hash to find all that one token did; it says nothing about the token. */
function tokenDetail(token: Secret<string>): Record<string, string> {
  const hash = joinTokenHash(token);
  return hash === undefined ? {} : { tokenSha256: hash.slice(0, 16) };
}

function accepted(redemption: Redemption, detail: Readonly<Record<string, string>>) {
  if (redemption.kind !== 'refused') return redemption;
  if (redemption.why !== 'another key')
    throw refuseCredential('join token', `must be good for a certificate, not ${redemption.why}`);
  throw new StolenCredential(
    'join-token-stolen',
    detail,
    'join token: must be shown with the key that it is bound to: two machines hold it',
    'find out who else has read the token, unless one machine has lost its key: an agent without --state-dir that was restarted, or istio-agent; if in doubt: keyturn ca revoke SPIFFE-ID',
  );
}
