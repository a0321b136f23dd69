import type { Certificate } from '../identity/certificate';
import { verifyChain } from '../identity/chain';
import type { CrlSet } from '../identity/crl';
import { type ProxyObstacle, type ProxySet, proxyObstacle } from '../identity/proxy-check';
import type { Svid } from '../identity/svid';
import type { TrustBundle } from '../identity/trust-bundle';
import { chainValidAt, readAccepted, rootsValidAt, type Withheld } from '../identity/valid-now';

/** What there is to serve, as it came. */
export interface Offered {
  readonly svid: Svid | undefined;
  readonly bundle: TrustBundle | undefined;
  readonly lists: CrlSet | undefined;
}

/** What of an offer goes out at one moment. */
export interface Prepared {
  readonly offered: Offered;
  /** With what of its chain is valid now. */
  readonly svid: Svid | undefined;
  /** What of it is valid now, in the order in which a proxy is to try it. */
  readonly bundle: TrustBundle | undefined;
  /** Roots that are not served now. */
  readonly withheld: readonly Withheld[];
  /** What the runtime's TLS is to shake hands with; undefined where our own certificate is not for our own roots. */
  readonly handshake: { readonly lists: CrlSet | undefined } | undefined;
  readonly obstacle: ProxyObstacle | undefined;
}

/**
 * What of an offer goes out now, and why a proxy would refuse every peer with it.
 *
 * @param now  Epoch milliseconds.
 */
export function prepare(offered: Offered, now: number): Prepared {
  const svid = offered.svid && chainValidAt(offered.svid, now);
  const roots = offered.bundle && rootsValidAt(offered.bundle, svid, now);
  const facts = { offered, svid, bundle: roots?.bundle, withheld: roots?.withheld ?? [] };
  if (!roots) return { ...facts, handshake: undefined, obstacle: undefined };
  if (!roots.bundle) return { ...facts, handshake: undefined, obstacle: noRoot(roots.withheld) };
  const set: ProxySet = {
    chain: (svid?.chainDer ?? []).map(readAccepted),
    roots: roots.bundle.rootsDer.map(readAccepted),
    lists: offered.lists?.lists,
  };
  if (!svid || isForOthers(svid, set, now)) {
    return { ...facts, handshake: undefined, obstacle: proxyObstacle({ ...set, chain: [] }, now) };
  }
  return {
    ...facts,
    handshake: { lists: hasListsOfAll(set) ? offered.lists : undefined },
    obstacle: proxyObstacle(set, now),
  };
}

function noRoot(withheld: readonly Withheld[]): ProxyObstacle {
  const each = withheld
    .slice(0, 3)
    .map(
      ({ certificate, because }) =>
        `${certificate.subject || certificate.sha256.slice(0, 16)} ${because}`,
    );
  return {
    kind: 'path',
    field: 'trust bundle',
    rule: `must hold a root that is valid now: ${each.join(', ')}`,
  };
}

/** Mounted files may be for another's trust: then their roots say nothing about their certificate. */
function isForOthers({ source }: Svid, { chain, roots }: ProxySet, now: number): boolean {
  if (source !== 'file') return false;
  const [leaf, ...others] = chain as [Certificate, ...Certificate[]];
  try {
    verifyChain(leaf, others, roots, now);
    return false;
  } catch {
    return true;
  }
}

/** The runtime wants a list of every CA of a chain, a proxy of the leaf's issuer alone: without lists of all, the handshake goes without. */
function hasListsOfAll({ chain, roots, lists = [] }: ProxySet): boolean {
  const hasList = (each: Certificate) =>
    lists.some(({ issuerDer }) => Buffer.compare(issuerDer, each.subjectDer) === 0);
  return lists.length > 0 && [...chain.slice(1), ...roots.slice(0, 1)].every(hasList);
}

/** What an offer comes to: it can be served, it cannot, or the runtime's TLS has not been asked. */
export type Verdict = ProxyObstacle | 'good' | 'unknown';

export type Choice =
  /** The handshake of this one has to be tried first. */
  | { readonly kind: 'ask'; readonly about: Prepared }
  /** `obstacle` is why the newest offer is not what is chosen, or that our certificate is revoked. */
  | {
      readonly kind: 'serve';
      readonly what: Prepared;
      readonly obstacle: ProxyObstacle | undefined;
    }
  /** Nothing works: what is served stays. */
  | { readonly kind: 'keep'; readonly newest: Prepared; readonly obstacle: ProxyObstacle };

/**
 * The newest of everything that works together: the newest offer, else the newest trust or the newest certificate with what is served of the
 * other. What fails does not replace what works. Lists that name our own certificate count all the same: they name others too.
 *
 * @param good     What was chosen last, as it came.
 * @param verdict  Of what the model finds nothing against.
 */
export function chooseServed(
  newest: Offered,
  good: Offered,
  now: number,
  verdict: (of: Prepared) => Verdict,
): Choice {
  let first: { readonly prepared: Prepared; readonly obstacle: ProxyObstacle } | undefined;
  for (const offered of candidates(newest, good, now)) {
    const prepared = prepare(offered, now);
    const found = prepared.obstacle ?? verdict(prepared);
    if (found === 'unknown') return { kind: 'ask', about: prepared };
    if (found === 'good') return { kind: 'serve', what: prepared, obstacle: first?.obstacle };
    if (found.kind === 'revoked')
      return {
        kind: 'serve',
        what: withoutNew(prepared, good),
        obstacle: first?.obstacle ?? found,
      };
    first ??= { prepared, obstacle: found };
  }
  // There is always a first candidate, and every other verdict returns.
  return { kind: 'keep', newest: first!.prepared, obstacle: first!.obstacle };
}

function candidates(newest: Offered, good: Offered, now: number): Offered[] {
  const kept = newest.svid && good.svid && now < good.svid.notAfterAt ? good.svid : undefined;
  const svids = [newest.svid, ...(kept && kept.serial !== newest.svid?.serial ? [kept] : [])];
  const trusts = [newest, { ...newest, lists: good.lists }, good].filter(
    (each, index, all) =>
      index === 0 ||
      !all
        .slice(0, index)
        .some((other) => other.bundle === each.bundle && other.lists === each.lists),
  );
  // Roots without lists would let in whom the lists name.
  const usable = trusts.filter(
    (each, index) => index === 0 || (each.bundle && (each.lists || !newest.lists)),
  );
  return usable.flatMap(({ bundle, lists }) => svids.map((svid) => ({ svid, bundle, lists })));
}

/** A revoked certificate stays where it is served already, since nothing is better; it does not begin to be served. */
function withoutNew(prepared: Prepared, good: Offered): Prepared {
  if (good.svid && good.svid.serial === prepared.svid?.serial) return prepared;
  return { ...prepared, svid: undefined, offered: { ...prepared.offered, svid: undefined } };
}
