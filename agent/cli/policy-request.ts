import { AgentError } from '../base/errors';
import type { VerifyToken } from '../policy/evaluate/jwt';
import { objectOf, objectsOf } from '../policy/resources/fields';
import type { JsonObject } from '../policy/resources/resource';

/** The listener of the port itself, or the one that takes all ports, such as istiod's virtualInbound. */
export function listenerAt(listeners: readonly JsonObject[], port: number): JsonObject {
  const inbound = listeners.filter(({ trafficDirection }) => trafficDirection !== 'OUTBOUND');
  const own = inbound.find(
    ({ address }) => objectOf(objectOf(address).socketAddress).portValue === port,
  );
  const shared = inbound.find(({ filterChains }) =>
    objectsOf(filterChains).some(
      ({ filterChainMatch }) => objectOf(filterChainMatch).destinationPort === port,
    ),
  );
  const found = own ?? shared;
  if (found) return found;
  throw new AgentError('ERR_POLICY', `port ${port}: no listener`, {
    hint: 'a Sidecar that selects the workload must list the port under spec.ingress, with captureMode: NONE',
  });
}

/** A token as a request carries it. */
export interface GivenToken {
  readonly text: string;
  /** Whether it was given as claims: no signature is asked for. */
  readonly isTrusted: boolean;
}

/** @param text  A token in compact form, or the claims of one as JSON, which are trusted. */
export function givenToken(text: string): GivenToken {
  const bare = text.trim();
  if (!bare.startsWith('{')) return { text: bare, isTrusted: false };
  const part = (json: string) => Buffer.from(json).toString('base64url');
  return { text: `${part('{"alg":"none"}')}.${part(bare)}.`, isTrusted: true };
}

/** Verifies tokens by the keys of their issuers. */
export function verifier(given: GivenToken | undefined): VerifyToken {
  return async (jwks, token) => {
    if (given?.isTrusted && token === given.text) return true;
    const { parseKeySet, TOKEN_ALGORITHMS } = await import('../jwt/key-set');
    const keys = await parseKeySet(jwks, 'JWKS', TOKEN_ALGORITHMS);
    return keys.verify(token).then(
      () => true,
      () => false,
    );
  };
}

/** The header that carries a token. */
export function bearer(token: GivenToken | undefined): readonly (readonly [string, string])[] {
  return token === undefined ? [] : [['authorization', `Bearer ${token.text}`]];
}
