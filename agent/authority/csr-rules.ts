import { type AgentError, invalid } from '../base/errors';
import type { Csr } from '../identity/csr';
import { formatSpiffeId, type SpiffeId } from '../identity/spiffe-id';

/** The rule that a request for somebody else's identity breaks. */
export const OWN_IDENTITY_ONLY = "must be the caller's own SPIFFE ID";

/**
 * Holds a request against the identity that its sender was proven to have. The certificate takes nothing but the public key from it, so
 * this only tells a client that asks for something else that it will not get it, instead of issuing what it did not ask for. A subject is
 * ignored: istio-agent's is an empty O, others put names there, and none of it is copied.
 *
 * @param csr     Its signature and key strength are already checked.
 * @param caller  Who sends it.
 * @throws        AgentError ERR_CA_REJECTED (retry slow) with field and rule.
 */
export function assertCsrAllowed(csr: Csr, caller: SpiffeId): void {
  const id = formatSpiffeId(caller);
  assertPlainCsr(csr, id);
  const [uri] = csr.uris;
  if (uri !== undefined && uri !== id) throw rejected('csr san', OWN_IDENTITY_ONLY, id);
}

/**
 * The part of `assertCsrAllowed` that needs no caller: a request for one identity or none, and for nothing else.
 *
 * @param whom  Who sends it, for the hint.
 */
export function assertPlainCsr(csr: Csr, whom: string): void {
  if (csr.otherExtensions.length > 0) {
    throw rejected(
      'csr extension request',
      `must ask for a subject alternative name only, not for ${csr.otherExtensions.join(', ')}`,
      whom,
    );
  }
  if (csr.otherNames.length > 0)
    throw rejected(
      'csr san',
      `must hold one URI only, not ${csr.otherNames.join(', ')} names`,
      whom,
    );
  if (csr.uris.length > 1) throw rejected('csr san', 'must not hold more than one URI', whom);
}

/** A refusal of the CA: what was asked for will not be signed, however often. */
export function rejected(field: string, rule: string, id: string, cause?: unknown): AgentError {
  return invalid('ERR_CA_REJECTED', field, rule, {
    retry: 'slow',
    hint: `the built-in CA signs a request of ${id} for exactly that identity`,
    ...(cause !== undefined && { cause }),
  });
}
