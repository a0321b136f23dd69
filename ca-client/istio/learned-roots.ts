import {
  type Certificate,
  isCa,
  parseCertificate,
  uriNames,
} from '../../agent/identity/certificate';
import { isSelfSigned, standingObstacle } from '../../agent/identity/chain';
import { formatSpiffeId } from '../../agent/identity/spiffe-id';
import { createTrustBundle, type TrustBundle } from '../../agent/identity/trust-bundle';
import type { SignRequest } from '../ca-client';
import { leafOfRequest, readableCertificates, verifyIssued } from '../issued-leaf';

/** A root that a reply brought. */
export interface LearnedRoot {
  readonly der: Uint8Array;
  /** SHA-256, hex, of the root by which that reply's leaf verified. Gone from the bundle, it takes what it vouched for with it. */
  readonly voucher: string;
}

/** A CA that rotates its root has two or three at a time. */
export const MAX_LEARNED = 32;

/** What a reply that proves itself says of roots. */
export interface Announcement {
  /** The certificates at its end that prove to be roots, the last first. None where the CA does not say. */
  readonly roots: readonly Certificate[];
  /** SHA-256, hex, of the root by which its leaf verifies. */
  readonly voucher: string;
}

/**
 * Reads what a reply announces; undefined where its leaf is not the answer to the request (its key, exactly its identity), or does not verify
 * by a root of `trust`: then it proves nothing.
 */
export function readAnnouncement(
  certificatesDer: readonly Uint8Array[],
  request: SignRequest,
  trust: TrustBundle,
  now: number,
): Announcement | undefined {
  const certificates = readableCertificates(certificatesDer);
  const leaf = leafOfRequest(certificates, request.csrDer);
  const uris = leaf ? uriNames(leaf) : [];
  if (!leaf || uris.length !== 1 || uris[0] !== formatSpiffeId(request.id)) return undefined;
  const voucher = voucherOf(leaf, certificates, trust, now);
  return voucher === undefined ? undefined : { roots: rootsAtTheEnd(certificates, now), voucher };
}

/**
 * The roots that a reply may add to what is trusted. A CA that rotates its root announces the next one behind the chain; whoever hears of
 * it only when the first certificate hangs on it is cut off.
 *
 * They are believed for the sake of the reply's own leaf, which verifies by a root that is trusted already. So nobody can add a root who could not have issued our certificate anyway. Taken are only the
 * certificates at the reply's end that prove to be roots: CAs, self-signed, valid now. An intermediate in the last place (istiod's RA puts
 * one there) is none.
 */
export function rootsOfReply({ roots, voucher }: Announcement, trust: TrustBundle): LearnedRoot[] {
  return roots.filter((each) => !holds(trust, each)).map(({ der }) => ({ der, voucher }));
}

function rootsAtTheEnd(certificates: readonly Certificate[], now: number): Certificate[] {
  const roots: Certificate[] = [];
  for (const each of [...certificates].reverse().slice(0, MAX_LEARNED)) {
    if (!isCa(each) || standingObstacle(each, now) !== undefined || !isSelfSigned(each)) break;
    roots.push(each);
  }
  return roots;
}

function voucherOf(
  leaf: Certificate,
  certificates: readonly Certificate[],
  trust: TrustBundle,
  now: number,
): string | undefined {
  try {
    return verifyIssued(leaf, certificates, trust, now).root.sha256;
  } catch {
    return undefined;
  }
}

/**
 * What is trusted in the end: the configured roots, and each learned one whose voucher is trusted, itself configured or learned. Whoever
 * removes a root from the configured bundle thereby removes what it vouched for. Expired learned roots are left out.
 */
export function extendBundle(
  configured: TrustBundle,
  learned: readonly LearnedRoot[],
  now: number,
): TrustBundle {
  const trusted = new Map(
    configured.rootsDer.map((der) => [parseCertificate(der, 'root').sha256, der]),
  );
  const waiting = new Map(
    learned.map((each) => [parseCertificate(each.der, 'root'), each.voucher]),
  );
  for (let grown = true; grown; ) {
    grown = false;
    for (const [root, voucher] of waiting) {
      if (
        !trusted.has(voucher) ||
        trusted.has(root.sha256) ||
        standingObstacle(root, now) !== undefined
      )
        continue;
      trusted.set(root.sha256, root.der);
      grown = true;
    }
  }
  return trusted.size === configured.rootsDer.length
    ? configured
    : createTrustBundle([...trusted.values()]);
}

/** Adds what is new; the oldest go first where there are too many. */
export function mergeLearned(
  known: readonly LearnedRoot[],
  more: readonly LearnedRoot[],
): readonly LearnedRoot[] {
  const fresh = more.filter(
    (each) =>
      !known.some(
        (other) => other.voucher === each.voucher && Buffer.compare(other.der, each.der) === 0,
      ),
  );
  return fresh.length === 0 ? known : [...known, ...fresh].slice(-MAX_LEARNED);
}

export function holds(trust: TrustBundle, root: Certificate): boolean {
  return trust.rootsDer.some((der) => Buffer.compare(der, root.der) === 0);
}
