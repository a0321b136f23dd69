import { invalid } from '../base/errors';
import { iso } from '../base/iso';
import { type Certificate, isCa, isSelfIssued, lacksKeyCertSign, uriNames } from './certificate';
import { PURPOSE } from './extensions';
import { SignatureChecker } from './signature-checker';

/** A path that verified. */
export interface VerifiedChain {
  /** Leaf first, then the intermediates in order; the root is not among them. */
  readonly path: readonly Certificate[];
  readonly root: Certificate;
  /** The earliest notAfter of the path and its root, epoch milliseconds. Of all paths that hold, this one ends last. */
  readonly notAfterAt: number;
}

/** How a path is verified beyond what is always asked. */
export interface ChainRules {
  /** Default one with a budget of its own. */
  readonly checker?: SignatureChecker;
  /** Whether each certificate between leaf and root must be given keyCertSign (X509-SVID section 4.3); default where it has key usages. */
  readonly keyCertSignRequired?: boolean;
}

/** How far in the future a notBefore may lie: clocks of CA and agent differ, and authorities without backdating exist. */
export const SKEW_TOLERANCE_MS = 60_000;
/** Certificates in a path, leaf and root included. */
const MAX_DEPTH = 8;
/** Looks at a candidate: certificates that cross-sign each other make paths without number from few signatures. */
const MAX_STEPS = 4096;
/** URIs of a certificate times constraints of its issuer. */
const MAX_CONSTRAINT_CHECKS = 4096;

/**
 * Builds a path from `leaf` to one of `roots` and verifies it. Of the paths that hold, the one that ends last is taken; of those that end
 * together the shortest. A certificate is good while any path of it holds (RFC 5280 section 6: path validation asks for one valid path).
 *
 * For each certificate above the leaf: name chaining (equal bytes of the names), key identifiers that do not contradict each other (RFC
 * 5280 calls them a help; OpenSSL and Envoy take a contradiction for another issuer), signature by its subject's key, CA:TRUE, keyCertSign
 * where key usages are given (`rules` may ask for it in any case), path length, serverAuth and clientAuth where purposes are given, URI name constraints. For each, leaf and
 * root included: valid at `now` (a notBefore up to `SKEW_TOLERANCE_MS` ahead is let pass), no critical extension that we do not know,
 * key strong enough (`PublicKey.weakness`). Signed with SHA-1 or MD5 is not signed. A root's own signature is not looked at: it is
 * trusted for being in the bundle. What the leaf says for itself (identity, usages) is the gate's to judge.
 *
 * Signatures are verified from the roots down: the key of a certificate is used only after a trusted one has certified it. So strangers
 * choose neither the keys that are used nor, with certificates of one name and without key identifiers, how often.
 *
 * @param pool  Other certificates that may stand between, in any order; strangers do no harm.
 * @throws      AgentError ERR_PARSE with `field` `chain` or the certificate, and the rule that stopped the most promising path.
 * @see RFC 5280 section 6.1.
 */
export function verifyChain(
  leaf: Certificate,
  pool: readonly Certificate[],
  roots: readonly Certificate[],
  now: number,
  rules: ChainRules = {},
): VerifiedChain {
  const obstacle = standingObstacle(leaf, now);
  if (obstacle !== undefined) throw invalid('ERR_PARSE', 'leaf', obstacle);
  const { checker = new SignatureChecker(), keyCertSignRequired = false } = rules;
  const asked = { pool, roots, now, checker, keyCertSignRequired };
  const search: Search = {
    ...asked,
    vouched: new Set(roots),
    refusals: [],
    steps: 0,
    best: undefined,
  };
  // The bounds of the search end the look for a better path; they do not take away the one that was found.
  const bound = [() => vouch(search, leaf), () => extend(search, [leaf], leaf.notAfterAt)]
    .map(boundOf)
    .find((each) => each !== undefined);
  if (search.best !== undefined) return search.best;
  if (bound !== undefined) throw bound;
  explain(search, [leaf]);
  const [refusal] = search.refusals.sort((a, b) => b.depth - a.depth);
  if (refusal !== undefined) throw invalid('ERR_PARSE', refusal.field, refusal.rule);
  throw invalid(
    'ERR_PARSE',
    'chain',
    `must verify to a trusted root: no trusted root or intermediate is named ${quote(leaf.issuer)}`,
  );
}

function boundOf(work: () => void): unknown {
  try {
    work();
    return undefined;
  } catch (caught) {
    return caught;
  }
}

/** As `verifyChain`, with its signatures verified in threads of the pool: for what strangers send to a server. */
export async function verifyChainAside(
  leaf: Certificate,
  pool: readonly Certificate[],
  roots: readonly Certificate[],
  now: number,
  rules: ChainRules & Required<Pick<ChainRules, 'checker'>>,
): Promise<VerifiedChain> {
  const { checker, keyCertSignRequired = false } = rules;
  const search = { pool, now, checker, keyCertSignRequired, vouched: new Set(roots) };
  for (const [certificate, issuer] of signaturesInQuestion(search, leaf))
    await checker.checkAside(certificate, issuer);
  return verifyChain(leaf, pool, roots, now, rules);
}

interface Search extends Required<ChainRules> {
  readonly pool: readonly Certificate[];
  readonly roots: readonly Certificate[];
  readonly now: number;
  /** The roots, and those of the pool that they have certified, directly or through each other. */
  readonly vouched: Set<Certificate>;
  steps: number;
  /** The path that ends last, of those found so far. */
  best: VerifiedChain | undefined;
  readonly refusals: { readonly depth: number; readonly field: string; readonly rule: string }[];
}

/**
 * Each signature by a vouched key that a path could need: the certificate and its issuer. The caller has it checked before it takes the
 * next, since what the answer vouches for may have signed others.
 */
function* signaturesInQuestion(
  search: Pick<Search, 'pool' | 'now' | 'vouched' | keyof ChainRules>,
  leaf: Certificate,
): Generator<readonly [Certificate, Certificate]> {
  const { pool, now, checker, vouched } = search;
  const rootIds = new Set([...vouched].map(({ sha256 }) => sha256));
  const couldIssue = (each: Certificate) =>
    isCa(each) &&
    !rootIds.has(each.sha256) &&
    standingObstacle(each, now) === undefined &&
    usageObstacle(each, search) === undefined;
  const inReach = withinReach(leaf, pool).filter((each) => each === leaf || couldIssue(each));
  // First what key identifiers point to, so that others of the same name do not use up the budget.
  for (const pointedTo of [true, undefined]) {
    // The set grows while it is walked: what an issuer has certified may be an issuer itself.
    for (const issuer of vouched) {
      if (!isCa(issuer) || standingObstacle(issuer, now) !== undefined) continue;
      for (const each of inReach) {
        if (each === issuer || !namesAsIssuer(each, issuer)) continue;
        if (pointedTo && !keyIdsAgree(each, issuer)) continue;
        yield [each, issuer];
        if (each !== leaf && checker.isSignedBy(each, issuer)) vouched.add(each);
      }
    }
  }
}

function vouch(search: Search, leaf: Certificate): void {
  for (const [certificate, issuer] of signaturesInQuestion(search, leaf))
    search.checker.isSignedBy(certificate, issuer);
}

/** The leaf, and what of the pool stands above it by names alone. */
function withinReach(leaf: Certificate, pool: readonly Certificate[]): Certificate[] {
  const found = new Set([leaf]);
  for (const below of found)
    for (const each of pool) if (namesAsIssuer(below, each)) found.add(each);
  return [...found];
}

/** Tries every way on from `path` that could end later than the best one found. `endsAt` is the earliest notAfter of `path`. */
function extend(search: Search, path: readonly Certificate[], endsAt: number): void {
  const last = path.at(-1)!;
  for (const root of candidates(last, search.roots)) {
    const notAfterAt = Math.min(endsAt, root.notAfterAt);
    if (isBetter(notAfterAt, search) && mayFollow(search, path, root, 'root'))
      search.best = { path, root, notAfterAt };
  }
  if (path.length >= MAX_DEPTH - 1) return;
  for (const next of candidates(last, search.pool)) {
    const notAfterAt = Math.min(endsAt, next.notAfterAt);
    if (
      !search.vouched.has(next) ||
      !isBetter(notAfterAt, search) ||
      path.some((each) => sameSubjectAndKey(each, next))
    )
      continue;
    if (mayFollow(search, path, next, 'intermediate')) extend(search, [...path, next], notAfterAt);
  }
}

/** Collects what stands in the way of the paths that names alone allow, where no path was found. Uses no key that is not vouched for. */
function explain(search: Search, path: readonly Certificate[]): void {
  const last = path.at(-1)!;
  if (path.length >= MAX_DEPTH - 1) return;
  for (const next of candidates(last, search.pool)) {
    if (search.steps >= MAX_STEPS) return;
    if (path.some((each) => sameSubjectAndKey(each, next))) continue;
    if (!mayFollow(search, path, next, 'intermediate')) continue;
    for (const root of candidates(next, search.roots))
      if (search.steps < MAX_STEPS) mayFollow(search, [...path, next], root, 'root');
    explain(search, [...path, next]);
  }
}

function isBetter(notAfterAt: number, { best }: Search): boolean {
  return best === undefined || notAfterAt > best.notAfterAt;
}

/** Those whose subject is the issuer's name: the ones that the key identifier points to first, of these the one that ends last. */
function candidates(certificate: Certificate, among: readonly Certificate[]): Certificate[] {
  const named = among.filter(
    (issuer) => Buffer.compare(certificate.issuerDer, issuer.subjectDer) === 0,
  );
  const pointedTo = (issuer: Certificate) => Number(keyIdsAgree(certificate, issuer) ?? false);
  return named.sort((a, b) => pointedTo(b) - pointedTo(a) || b.notAfterAt - a.notAfterAt);
}

/** Whether a certificate's authority key identifier is its issuer's subject key identifier; undefined where one of them is absent. */
export function keyIdsAgree(
  { authorityKeyId }: Certificate,
  { subjectKeyId }: Certificate,
): boolean | undefined {
  if (authorityKeyId === undefined || subjectKeyId === undefined) return undefined;
  return Buffer.compare(authorityKeyId, subjectKeyId) === 0;
}

/** Whether a certificate names another as its issuer, by name and, where both have one, by key identifier. */
export function namesAsIssuer(certificate: Certificate, issuer: Certificate): boolean {
  return (
    Buffer.compare(certificate.issuerDer, issuer.subjectDer) === 0 &&
    keyIdsAgree(certificate, issuer) !== false
  );
}

/** Whether both stand for one signer, however often it was certified. */
export function sameSubjectAndKey(a: Certificate, b: Certificate): boolean {
  return (
    Buffer.compare(a.subjectDer, b.subjectDer) === 0 &&
    Buffer.compare(a.publicKey.spkiDer, b.publicKey.spkiDer) === 0
  );
}

function mayFollow(
  search: Search,
  path: readonly Certificate[],
  issuer: Certificate,
  role: 'root' | 'intermediate',
): boolean {
  search.steps += 1;
  if (search.steps > MAX_STEPS)
    throw invalid('ERR_PARSE', 'chain', `must verify within ${MAX_STEPS} steps`);
  const last = path.at(-1)!;
  const rule =
    (keyIdsAgree(last, issuer) === false
      ? 'must have signed what names it as issuer; their key identifiers differ'
      : undefined) ??
    standingObstacle(issuer, search.now) ??
    signingObstacle(issuer, path) ??
    (role === 'intermediate' ? usageObstacle(issuer, search) : undefined) ??
    // What costs comes last: the signature, then the constraints of a CA that has proven to be in the path.
    (!search.vouched.has(issuer) || search.checker.isSignedBy(last, issuer)
      ? undefined
      : signatureRule(last)) ??
    path.map((each) => constraintObstacle(issuer, each)).find((broken) => broken !== undefined);
  if (rule !== undefined)
    search.refusals.push({ depth: path.length, field: `${role} ${quote(issuer.subject)}`, rule });
  return rule === undefined;
}

function signatureRule(certificate: Certificate): string {
  const { usable, text } = certificate.signatureAlgorithm;
  return usable
    ? 'must have signed what names it as issuer'
    : `must sign with ECDSA or RSA and SHA-256, SHA-384 or SHA-512, not ${text}`;
}

/** Whether it is a root: it names itself as issuer, and its own key signed it; no where the checker's budget is used up. */
export function isSelfSigned(certificate: Certificate, checker = new SignatureChecker()): boolean {
  return isSelfIssued(certificate) && checker.isSurelySignedBy(certificate, certificate);
}

/** Why a certificate cannot be relied on by anybody now, as a rule that it breaks; undefined where it can. */
export function standingObstacle(certificate: Certificate, now: number): string | undefined {
  const { notBeforeAt, notAfterAt, unknownCritical, publicKey } = certificate;
  if (notBeforeAt >= notAfterAt) return 'must end after it begins';
  if (now >= notAfterAt) return `must not be expired: it ended at ${iso(notAfterAt)}`;
  if (notBeforeAt > now + SKEW_TOLERANCE_MS)
    return `must be valid now: it begins at ${iso(notBeforeAt)}`;
  if (unknownCritical.length > 0)
    return `must not have unknown critical extensions: ${unknownCritical.join(', ')}`;
  if (publicKey.weakness !== undefined) return `key ${publicKey.weakness}`;
  return undefined;
}

/** Why a certificate cannot be the issuer of a path's last one. */
function signingObstacle(issuer: Certificate, path: readonly Certificate[]): string | undefined {
  if (!isCa(issuer)) return 'must be a CA that may sign certificates';
  const limit = issuer.basicConstraints?.pathLength;
  const between = path.slice(1).filter((each) => !isSelfIssued(each)).length;
  if (limit !== undefined && between > limit)
    return `must not have more than ${limit} intermediates below it`;
  const purposes = issuer.extendedKeyUsage;
  if (purposes !== undefined && !purposes.includes(PURPOSE.any)) {
    if (!purposes.includes(PURPOSE.serverAuth) || !purposes.includes(PURPOSE.clientAuth)) {
      return 'must allow serverAuth and clientAuth where it has extended key usages';
    }
  }
  return undefined;
}

/** A root is trusted for being in the bundle, whatever its usages; those between it and the leaf are what others made. */
function usageObstacle(
  issuer: Certificate,
  { keyCertSignRequired }: Pick<Search, 'keyCertSignRequired'>,
): string | undefined {
  return keyCertSignRequired && lacksKeyCertSign(issuer)
    ? 'must have the key usage keyCertSign'
    : undefined;
}

/** Name constraints on hosts of URIs are applied; on a kind of name that the certificate does not carry they have nothing to say. */
function constraintObstacle(issuer: Certificate, below: Certificate): string | undefined {
  const constraints = issuer.nameConstraints;
  if (constraints === undefined) return undefined;
  const carried = new Set<string>((below.subjectAltName?.names ?? []).map(({ kind }) => kind));
  if (below.subject !== '') carried.add('directory').add('email');
  const unsupported = constraints.otherKinds.find((kind) => carried.has(kind));
  if (unsupported !== undefined)
    return `must not constrain ${unsupported} names, which are not supported here`;
  const uris = uriNames(below);
  const { permittedUris, excludedUris } = constraints;
  if (uris.length * (permittedUris.length + excludedUris.length) > MAX_CONSTRAINT_CHECKS)
    return 'must not have that many name constraints';
  for (const uri of uris) {
    const host = hostOf(uri);
    // A URI without a host, and a constraint without one, cannot be compared: the answer is no either way.
    if (
      excludedUris.some((each) => host === undefined || each === '' || isHostWithin(host, each))
    ) {
      return `must not exclude ${uri.slice(0, 200)} by its name constraints`;
    }
    if (
      permittedUris.length > 0 &&
      !permittedUris.some((each) => host !== undefined && each !== '' && isHostWithin(host, each))
    ) {
      return `must permit ${uri.slice(0, 200)} by its name constraints`;
    }
  }
  return undefined;
}

function hostOf(uri: string): string | undefined {
  return /^[a-z][a-z0-9+.-]*:\/\/(?:[^/?#@]*@)?([a-z0-9._-]+)(?::\d*)?(?:[/?#]|$)/i
    .exec(uri)?.[1]
    ?.toLowerCase();
}

/** RFC 5280 section 4.2.1.10: `.example.org` is every host below it, `example.org` is that host alone. */
function isHostWithin(host: string, constraint: string): boolean {
  const wanted = constraint.toLowerCase();
  return wanted.startsWith('.')
    ? host.length > wanted.length && host.endsWith(wanted)
    : host === wanted;
}

const quote = (name: string) => (name === '' ? 'of no name' : `"${name.slice(0, 200)}"`);
