import { createHash } from 'node:crypto';
import { invalid } from '../base/errors';

/** The roots that a workload trusts. Sorted and free of duplicates by bytes, so equal bundles are equal values with equal versions. */
export interface TrustBundle {
  readonly rootsDer: readonly Uint8Array[];
  /** SHA-256 over the sorted roots, hex. */
  readonly version: string;
}

/**
 * Makes a bundle of certificates that were already read as CA certificates.
 *
 * @throws AgentError ERR_PARSE when there is none: an empty bundle would make Envoy trust nobody, or worse.
 */
export function createTrustBundle(rootsDer: readonly Uint8Array[]): TrustBundle {
  if (rootsDer.length === 0) throw invalid('ERR_PARSE', 'trust bundle', 'must hold at least one certificate');
  const sorted = [...rootsDer]
    .sort(Buffer.compare)
    .filter((root, index, all) => index === 0 || Buffer.compare(root, all[index - 1]!) !== 0);
  const hash = createHash('sha256');
  for (const root of sorted) hash.update(root);
  return { rootsDer: sorted, version: hash.digest('hex') };
}
