import { parseCertificate } from '../../agent/identity/certificate';
import { createTrustBundle, type TrustBundle } from '../../agent/identity/trust-bundle';
import type { SignRequest } from '../ca-client';
import { verifyIssued } from '../issued-leaf';
import { type Announcement, holds, type LearnedRoot, readAnnouncement } from './learned-roots';

/** The server that a reply came from. */
export interface ProvenServer {
  /** The roots that TLS judged it by, all from a file or taught by this server before. */
  readonly roots: TrustBundle;
  /** What it showed, DER, leaf first. */
  readonly shownDer: readonly Uint8Array[];
}

/**
 * The roots that a reply adds to those which its server's TLS is judged by, each with the root that vouches for it: one of `server.roots` by
 * which, alone, both the certificate that the server showed and the one that it issued to us verify. Such a root could have let in any server
 * of that name before, so nobody gains by announcing another. Where the root of the server is not that of the mesh, nothing is added.
 *
 * @param announced  What `reply` announces.
 */
export function rootsTaught(
  announced: Announcement,
  reply: readonly Uint8Array[],
  request: SignRequest,
  server: ProvenServer,
  now: number,
): LearnedRoot[] {
  const offered = announced.roots.filter((each) => !holds(server.roots, each));
  if (offered.length === 0) return [];
  const vouchers = server.roots.rootsDer.filter((der) => {
    const alone = createTrustBundle([der]);
    return (
      isShownUnder(alone, server.shownDer, now) &&
      readAnnouncement(reply, request, alone, now) !== undefined
    );
  });
  return vouchers
    .map((der) => parseCertificate(der, 'root').sha256)
    .flatMap((voucher) => offered.map(({ der }) => ({ der, voucher })));
}

/**
 * Those of the taught roots that the server still announces. A reply that announces none says nothing about them.
 */
export function stillAnnounced(
  taught: readonly LearnedRoot[],
  { roots }: Announcement,
): readonly LearnedRoot[] {
  if (roots.length === 0) return taught;
  const kept = taught.filter(({ der }) =>
    roots.some((each) => Buffer.compare(each.der, der) === 0),
  );
  return kept.length === taught.length ? taught : kept;
}

function isShownUnder(roots: TrustBundle, shownDer: readonly Uint8Array[], now: number): boolean {
  try {
    const [leaf, ...others] = shownDer.map((der) => parseCertificate(der));
    if (!leaf) return false;
    verifyIssued(leaf, others, roots, now);
    return true;
  } catch {
    return false;
  }
}
