import type { KeyPair } from './keys';
import type { SpiffeId } from './spiffe-id';
import type { TrustBundle } from './trust-bundle';

/**
 * A key, its certificate chain and the bundle that it verified against: one value, replaced as one. Only `acceptIssuedChain` makes it, so
 * nothing downstream checks again that they belong together.
 */
export interface Svid {
  /** Undefined only for a mounted certificate that carries no SPIFFE ID. */
  readonly id: SpiffeId | undefined;
  readonly key: KeyPair;
  /** Leaf first, then intermediates; never a self-signed root. */
  readonly chainDer: readonly Uint8Array[];
  readonly bundle: TrustBundle;
  /** The leaf's serial number, lower-case hex, as `openssl x509 -serial` prints it but for case. */
  readonly serial: string;
  /** Epoch milliseconds: the leaf's notBefore, and the earliest notAfter of the chain and the root that it verified to. */
  readonly notBeforeAt: number;
  readonly notAfterAt: number;
  /** When the gate accepted it, epoch milliseconds. */
  readonly receivedAt: number;
  /** Which certificate authority gave it: the name of the `CaClient`, or `files`. */
  readonly source: string;
  /** What is unusual about it but accepted, for `status`, e.g. a leaf without KeyUsage. */
  readonly warnings: readonly string[];
}
