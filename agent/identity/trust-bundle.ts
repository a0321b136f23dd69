import { createHash } from 'node:crypto';
import { invalid } from '../base/errors';

/**
 * The roots that a workload trusts, free of duplicates. `createTrustBundle` sorts them by bytes, so equal bundles are equal values with equal
 * versions; what goes to a proxy is in the order in which it is to try them (`orderedBundle`).
 */
export interface TrustBundle {
  readonly rootsDer: readonly Uint8Array[];
  /** SHA-256 over the roots in their order, hex. */
  readonly version: string;
}

/**
 * Makes a bundle of certificates that were already read as CA certificates.
 *
 * @throws AgentError ERR_PARSE when there is none: an empty bundle would make Envoy trust nobody, or worse.
 */
export function createTrustBundle(rootsDer: readonly Uint8Array[]): TrustBundle {
  if (rootsDer.length === 0)
    throw invalid('ERR_PARSE', 'trust bundle', 'must hold at least one certificate');
  const sorted = [...rootsDer]
    .sort(Buffer.compare)
    .filter((root, index, all) => index === 0 || Buffer.compare(root, all[index - 1]!) !== 0);
  return orderedBundle(sorted);
}

/** A bundle of roots whose order counts: at least one, without duplicates. */
export function orderedBundle(rootsDer: readonly Uint8Array[]): TrustBundle {
  const hash = createHash('sha256');
  for (const root of rootsDer) hash.update(root);
  return { rootsDer, version: hash.digest('hex') };
}
