import { invalid } from '../base/errors';

/** A SPIFFE ID that passed `parseSpiffeId`; there is no invalid instance. `path` begins with `/` and has at least one segment. */
export interface SpiffeId {
  readonly trustDomain: string;
  readonly path: string;
}

const SCHEME = 'spiffe://';
/** SPIFFE-ID section 2.3: 2048 bytes must be supported and more should not be made; section 2.1: 255 bytes of trust domain. */
const MAX_ID_BYTES = 2048;
const MAX_TRUST_DOMAIN_BYTES = 255;

/**
 * Reads a workload's SPIFFE ID, to the letter of the standard: nothing is normalised, so text and ID are one to one.
 *
 * @throws AgentError ERR_IDENTITY_INVALID with `field` (`spiffe id`, `trust domain` or `path`) and `rule`.
 * @see SPIFFE-ID sections 2, 2.1, 2.2, 2.3; X509-SVID section 3.1 (a leaf's path must not be empty).
 */
export function parseSpiffeId(text: string): SpiffeId {
  if (text.length === 0) throw refuse('spiffe id', 'must not be empty');
  if (text.length > MAX_ID_BYTES)
    throw refuse('spiffe id', `must not be longer than ${MAX_ID_BYTES} bytes`);
  if (!text.startsWith(SCHEME)) throw refuse('spiffe id', `must start with ${SCHEME}`);
  const slash = text.indexOf('/', SCHEME.length);
  const trustDomain = parseTrustDomain(
    slash < 0 ? text.slice(SCHEME.length) : text.slice(SCHEME.length, slash),
  );
  if (slash < 0) throw refuse('path', 'must not be empty in a workload identity');
  const path = text.slice(slash);
  checkPath(path);
  return { trustDomain, path };
}

/** The inverse of `parseSpiffeId`. */
export function formatSpiffeId(id: SpiffeId): string {
  return `${SCHEME}${id.trustDomain}${id.path}`;
}

/** `spiffe://TD/ns/NS/sa/SA`, Istio's form. Each part is checked as one path segment, so no part can reach into another. */
export function serviceAccountId(
  trustDomain: string,
  namespace: string,
  serviceAccount: string,
): SpiffeId {
  for (const [field, value] of [
    ['namespace', namespace],
    ['service account', serviceAccount],
  ] as const) {
    checkSegment(value, field);
  }
  return parseSpiffeId(
    `${SCHEME}${parseTrustDomain(trustDomain)}/ns/${namespace}/sa/${serviceAccount}`,
  );
}

export function sameSpiffeId(a: SpiffeId, b: SpiffeId): boolean {
  return a.trustDomain === b.trustDomain && a.path === b.path;
}

/**
 * Checks a trust domain's name: `[a-z0-9.-_]`, 1 to 255 bytes.
 *
 * @throws AgentError ERR_IDENTITY_INVALID.
 * @see SPIFFE-ID section 2.1.
 */
export function parseTrustDomain(text: string): string {
  if (text.length === 0) throw refuse('trust domain', 'must not be empty');
  if (text.length > MAX_TRUST_DOMAIN_BYTES)
    throw refuse('trust domain', `must not be longer than ${MAX_TRUST_DOMAIN_BYTES} bytes`);
  if (!/^[a-z0-9._-]+$/.test(text))
    throw refuse(
      'trust domain',
      'may contain only lower-case letters, digits, dots, dashes and underscores',
    );
  return text;
}

function checkPath(path: string): void {
  for (const segment of path.slice(1).split('/')) checkSegment(segment, 'path');
}

function checkSegment(segment: string, field: string): void {
  const one = field === 'path' ? 'segments' : 'it';
  if (segment.length === 0)
    throw refuse(
      field,
      field === 'path' ? 'must not have empty segments or a trailing slash' : 'must not be empty',
    );
  if (segment === '.' || segment === '..') throw refuse(field, 'must not be or have a dot segment');
  if (!/^[a-zA-Z0-9._-]+$/.test(segment))
    throw refuse(field, `${one} may contain only letters, digits, dots, dashes and underscores`);
}

function refuse(field: string, rule: string) {
  const hint =
    field === 'trust domain'
      ? 'a trust domain looks like example.org'
      : 'a SPIFFE ID looks like spiffe://cluster.local/ns/default/sa/cart';
  return invalid('ERR_IDENTITY_INVALID', field, rule, { hint });
}
