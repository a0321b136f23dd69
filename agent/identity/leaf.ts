import { invalid } from '../base/errors';
import type { Certificate } from './certificate';
import { uriNames } from './certificate';
import { PURPOSE } from './extensions';
import { formatSpiffeId, parseSpiffeId, type SpiffeId } from './spiffe-id';

/**
 * Judges a leaf by what it says for itself: exactly one URI SAN, which is `id`; not a CA; usages that fit both sides of mutual TLS.
 *
 * Where standards allow or authorities in use differ, it is accepted with a warning: names beside the SPIFFE ID (X509-SVID section 2
 * allows them; we asked for none), no KeyUsage (istio-csr) or one that is not critical, no ExtendedKeyUsage, a SAN that is not critical
 * beside an empty subject.
 *
 * @returns  Warnings.
 * @throws   AgentError ERR_PARSE with `field` `leaf`.
 * @see X509-SVID sections 2, 3.1, 4.1, 4.3, 4.4 and 5.2.
 */
export function checkLeaf(leaf: Certificate, id: SpiffeId): string[] {
  const uris = uriNames(leaf);
  const wanted = formatSpiffeId(id);
  if (uris.length !== 1) throw refuse(`must have exactly one URI SAN, not ${uris.length}`);
  if (uris[0] !== wanted) throw refuse(`must be for ${wanted}, not ${uris[0]!.slice(0, 200)}`);
  if (/^0*$/.test(leaf.serial)) throw refuse('must have a positive serial number');
  checkNotCa(leaf);
  return [...usageWarnings(leaf), ...nameWarnings(leaf)];
}

/** X509-SVID section 4.1 and 4.3: a signing certificate never identifies a workload. */
export function checkNotCa(leaf: Certificate): void {
  if (leaf.basicConstraints?.ca) throw refuse('must not be a CA');
  const usages = leaf.keyUsage?.usages ?? [];
  if (usages.includes('keyCertSign') || usages.includes('cRLSign'))
    throw refuse('must not have key usage keyCertSign or cRLSign');
}

function usageWarnings(leaf: Certificate): string[] {
  const { keyUsage, extendedKeyUsage } = leaf;
  if (keyUsage && !keyUsage.usages.includes('digitalSignature'))
    throw refuse('must have key usage digitalSignature');
  for (const purpose of ['serverAuth', 'clientAuth'] as const) {
    if (extendedKeyUsage && !extendedKeyUsage.includes(PURPOSE[purpose]))
      throw refuse(`must have extended key usage ${purpose}`);
  }
  return [
    ...(keyUsage ? [] : ['the leaf has no key usage']),
    ...(keyUsage && !keyUsage.critical ? ['the leaf has a key usage that is not critical'] : []),
    ...(extendedKeyUsage ? [] : ['the leaf has no extended key usage']),
  ];
}

function nameWarnings(leaf: Certificate): string[] {
  const others = (leaf.subjectAltName?.names ?? [])
    .filter(({ kind }) => kind !== 'uri')
    .map(({ kind }) => kind);
  return [
    ...(others.length > 0
      ? [`the leaf has other names beside its SPIFFE ID: ${[...new Set(others)].join(', ')}`]
      : []),
    ...(leaf.subject === '' && leaf.subjectAltName?.critical === false
      ? ['the leaf has an empty subject and a SAN that is not critical']
      : []),
  ];
}

/**
 * The SPIFFE ID of a mounted certificate: what is expected, where something is; else its one URI SAN, if that is a SPIFFE ID.
 *
 * @throws AgentError ERR_PARSE when it is not the expected one.
 */
export function readIdentity(
  leaf: Certificate,
  expected: SpiffeId | undefined,
): SpiffeId | undefined {
  const uris = uriNames(leaf);
  if (expected !== undefined) {
    const wanted = formatSpiffeId(expected);
    if (uris.length !== 1 || uris[0] !== wanted)
      throw refuse(`must be for ${wanted}, not ${uris.join(', ').slice(0, 200) || 'nothing'}`);
    return expected;
  }
  if (uris.length !== 1) return undefined;
  try {
    return parseSpiffeId(uris[0]!);
  } catch {
    return undefined;
  }
}

function refuse(rule: string) {
  return invalid('ERR_PARSE', 'leaf', rule);
}
