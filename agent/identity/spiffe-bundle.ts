import type { TrustBundle } from './trust-bundle';

/** What certificates and tokens of one trust domain are judged by: the SPIFFE bundle of that trust domain. */
export interface SpiffeBundle {
  readonly trustDomain: string;
  /** Undefined where there are none: then no X.509-SVID of it is to be believed. */
  readonly roots: TrustBundle | undefined;
}

/** Bundles of other trust domains, by the names of these. Undefined where nothing is known yet of one that is to be believed. */
export type FederatedBundles = ReadonlyMap<string, SpiffeBundle | undefined>;
