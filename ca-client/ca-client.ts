import type { AgentError } from '../agent/base/errors';
import type { Watched } from '../agent/base/watched';
import type { SpiffeId } from '../agent/identity/spiffe-id';
import type { TrustBundle } from '../agent/identity/trust-bundle';

/**
 * A certificate authority as the agent asks it. Every implementation passes `test/contract/ca-client.ts`.
 *
 * @example
 *   const { certificatesDer } = await ca.sign({ id, csrDer, ttlSeconds: 86_400 }, AbortSignal.timeout(60_000));
 *   const stop = ca.onChange((what) => what === 'signer' && source.renewNow('the signer changed'));
 */
export interface CaClient {
  /** As in `--ca`: `builtin`, `istiod`, ... */
  readonly name: string;
  /**
   * The roots that verify leaves of this CA, and that ROOTCA carries. Undefined until known. Never taken from a reply without proof.
   */
  readonly trust: Watched<TrustBundle | undefined>;
  /**
   * Asks for one certificate.
   *
   * @throws AgentError ERR_CA_UNAVAILABLE | ERR_CA_REJECTED | ERR_TOKEN | ERR_CA_STATE with its `retry`; ERR_ABORTED when the signal fires.
   *         It keeps no deadline of its own for the whole call: the caller's signal carries it. If that fires because time ran out
   *         (`isDeadline`), the same request may follow, and a CA that can waits again for what it has begun.
   */
  sign(request: SignRequest, signal: AbortSignal): Promise<IssuedChain>;
  /**
   * Reports what should end a wait: `signer` (another key or intermediate signs now: renew), `credential` (token, provisioning
   * certificate or root for the CA's TLS changed: a failed attempt is worth repeating at once).
   */
  onChange(listener: (what: 'signer' | 'credential') => void): () => void;
  /** What is wrong with the CA as it is configured now, while the previous state is still in use; undefined if nothing is. */
  problem(): AgentError | undefined;
  /** When the credential for the next renewal expires, epoch milliseconds; undefined if none is needed or nothing is known. */
  credentialExpiresAt(): number | undefined;
  close(): Promise<void>;
}

export interface SignRequest {
  readonly id: SpiffeId;
  /** PKCS#10, DER. */
  readonly csrDer: Uint8Array;
  readonly ttlSeconds: number;
  /**
   * Called before a credential goes out that is good for one key: from then on that key must be kept until its certificate is there.
   *
   * @throws AgentError if the key cannot be kept; then the credential is not sent.
   */
  readonly keepKey?: (() => Promise<void>) | undefined;
  /** When the caller's signal fires without an answer, epoch milliseconds: for a client that divides the time. */
  readonly answerBy?: number | undefined;
}

/** A CA's reply as it came, parsed no further than into certificates. It proves nothing until `acceptIssuedChain` has accepted it. */
export interface IssuedChain {
  /** In the order of the reply, at least one element. May contain roots and strangers. */
  readonly certificatesDer: readonly Uint8Array[];
  /** Which of several CAs signed; default the client's name. */
  readonly source?: string;
}
