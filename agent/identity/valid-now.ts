import { iso } from '../base/iso';
import { type Certificate, isSelfIssued, parseCertificate } from './certificate';
import { sameSubjectAndKey, verifyChain } from './chain';
import type { CrlSet } from './crl';
import { comparableName } from './name';
import type { Svid } from './svid';
import { createTrustBundle, orderedBundle, type TrustBundle } from './trust-bundle';

/** A certificate that is not served at a moment, and why. */
export interface Withheld {
  readonly certificate: Certificate;
  /** e.g. `ended at 2026-01-01T00:00:00.000Z`. */
  readonly because: string;
}

/** Certificates in a path. */
const MAX_OWN = 8;

const read = new WeakMap<Uint8Array, Certificate>();

/** Reads a certificate that was accepted before, once for each object. */
export function readAccepted(der: Uint8Array): Certificate {
  const known = read.get(der) ?? parseCertificate(der);
  read.set(der, known);
  return known;
}

/** Whether a certificate is valid at that very moment, as a proxy sees it, which knows no tolerance. */
export function isValidAt({ notBeforeAt, notAfterAt }: Certificate, now: number): boolean {
  return notBeforeAt <= now && now < notAfterAt;
}

/**
 * What of a bundle may go to a proxy now. A proxy takes the first root of a name, so among those of one name come first what `svid` verifies
 * by, then the one that lasts longest.
 *
 * @returns  `bundle` is undefined where no root is valid now.
 */
export function rootsValidAt(
  bundle: TrustBundle,
  svid: Svid | undefined,
  now: number,
): { readonly bundle: TrustBundle | undefined; readonly withheld: readonly Withheld[] } {
  const all = bundle.rootsDer.map(readAccepted);
  const valid = all.filter((each) => isValidAt(each, now));
  const withheld = all
    .filter((each) => !valid.includes(each))
    .map((certificate) => ({ certificate, because: reasonAt(certificate, now) }));
  if (valid.length === 0) return { bundle: undefined, withheld };
  const own = svid ? ownRoots(svid, valid, now) : [];
  return { bundle: orderedBundle(inOrderOfTrial(valid, own).map(({ der }) => der)), withheld };
}

/** Sorted by bytes, as upstream does; but those of one name share their places in the order in which they are to be tried. */
function inOrderOfTrial(roots: readonly Certificate[], own: readonly Certificate[]): Certificate[] {
  const rank = (each: Certificate) => (own.includes(each) ? 0 : 1);
  const nameOf = ({ subjectDer }: Certificate) => comparableName(subjectDer);
  const sorted = [...roots].sort((a, b) => Buffer.compare(a.der, b.der));
  const queues = new Map<string, Certificate[]>();
  for (const each of [...sorted].sort((a, b) => rank(a) - rank(b) || b.notAfterAt - a.notAfterAt)) {
    const name = nameOf(each);
    const queue = queues.get(name) ?? [];
    queue.push(each);
    queues.set(name, queue);
  }
  return sorted.map((each) => queues.get(nameOf(each))!.shift()!);
}

/**
 * What of a bundle goes to those who keep what they were handed: other agents until they renew, files, other clusters. Only roots that are valid
 * now, and of several of one name and key the one that ends last: the others would end where they lie, and a proxy may try a dead one before its
 * living self. Where none is valid all stay: then a clock is wrong, or nothing is worth trusting.
 *
 * @param now  Epoch milliseconds.
 */
export function rootsToHandOut(bundle: TrustBundle, now: number): TrustBundle {
  const valid = bundle.rootsDer.map(readAccepted).filter((each) => isValidAt(each, now));
  const lasting = [...valid].sort((a, b) => b.notAfterAt - a.notAfterAt);
  const handed = lasting.filter(
    (each, index) => !lasting.slice(0, index).some((other) => sameSubjectAndKey(other, each)),
  );
  return handed.length === 0 ? bundle : createTrustBundle(handed.map(({ der }) => der));
}

/**
 * A leaf and what of those above it is valid at its own beginning or now, whichever is later: who is handed a chain keeps it as it is.
 *
 * @param issued  The chain, and when its leaf begins, epoch milliseconds.
 */
export function chainToHandOut(
  {
    certificatesDer,
    notBeforeAt,
  }: { readonly certificatesDer: readonly Uint8Array[]; readonly notBeforeAt: number },
  now: number,
): Uint8Array[] {
  const [leaf, ...above] = certificatesDer;
  // A signer that begins within the tolerance of clocks signs leaves that begin with it.
  const at = Math.max(now, notBeforeAt);
  return [leaf!, ...above.filter((der) => isValidAt(readAccepted(der), at))];
}

function reasonAt({ notBeforeAt, notAfterAt }: Certificate, now: number): string {
  return now < notBeforeAt ? `begins at ${iso(notBeforeAt)}` : `ended at ${iso(notAfterAt)}`;
}

/**
 * The root that a certificate verifies to, and where that is an intermediate those above it: a proxy walks on. None for a mounted certificate
 * for another's trust.
 */
function ownRoots({ chainDer }: Svid, roots: readonly Certificate[], now: number): Certificate[] {
  const own: Certificate[] = [];
  let [last, ...pool] = chainDer.map(readAccepted) as [Certificate, ...Certificate[]];
  while (own.length < MAX_OWN && (own.length === 0 || !isSelfIssued(last))) {
    const others = roots.filter((each) => !own.includes(each));
    try {
      last = verifyChain(last, pool, others, now).root;
    } catch {
      break;
    }
    pool = [];
    own.push(last);
  }
  return own;
}

const served = new WeakMap<Svid, Svid>();

/** The SVID without what of its chain is not valid now. Equal answers in a row are one object, so nothing is sent twice. */
export function chainValidAt(svid: Svid, now: number): Svid {
  const [leaf, ...others] = svid.chainDer as [Uint8Array, ...Uint8Array[]];
  const chainDer = [leaf, ...others.filter((der) => isValidAt(readAccepted(der), now))];
  if (chainDer.length === svid.chainDer.length) return svid;
  const known = served.get(svid);
  if (
    known?.chainDer.length === chainDer.length &&
    known.chainDer.every((der, index) => der === chainDer[index])
  )
    return known;
  const cut = { ...svid, chainDer };
  served.set(svid, cut);
  return cut;
}

/** When next something of these begins or ends, epoch milliseconds; infinite where nothing does. */
export function nextChangeAt(
  svids: readonly (Svid | undefined)[],
  bundles: readonly (TrustBundle | undefined)[],
  lists: readonly (CrlSet | undefined)[],
  now: number,
): number {
  const ders = [
    ...svids.flatMap((each) => each?.chainDer ?? []),
    ...bundles.flatMap((each) => each?.rootsDer ?? []),
  ];
  const dates = [
    ...ders.map(readAccepted).flatMap(({ notBeforeAt, notAfterAt }) => [notBeforeAt, notAfterAt]),
    ...svids.flatMap((each) => (each ? [each.notAfterAt] : [])),
    ...lists
      .flatMap((each) => each?.lists ?? [])
      .flatMap(({ thisUpdateAt, nextUpdateAt }) => [thisUpdateAt, nextUpdateAt]),
  ];
  // Not spread into Math.min: a bundle may hold more than a call takes.
  return dates.reduce((next, at) => (at > now && at < next ? at : next), Number.POSITIVE_INFINITY);
}
