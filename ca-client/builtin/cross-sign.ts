import type { Logger } from '../../agent/base/log';
import { type Certificate, certificatesPem, parseCertificate, parseCertificates } from '../../agent/identity/certificate';
import { sameSubjectAndKey, verifyChain } from '../../agent/identity/chain';
import { SignatureChecker } from '../../agent/identity/signature-checker';
import { CA_FILES, type CaFiles } from './ca-files';
import { crossSpec } from './certificate-specs';
import { acceptIssuer, type Issuer } from './issuer';
import { copyOf, keyHash, type RootsOptions, rootsOf } from './root-facts';

/**
 * The cert-chain.pem of a signer that takes over from another: with the new signer's key certified by the old signer. It goes out behind every
 * leaf, so that a peer whose copy of the roots is as old as the old root verifies the leaf, and the server that shows it, by that one.
 *
 * @param next     The signer that is to take over.
 * @param current  The one that signs until now. Where it cannot certify a CA (expired, or `pathlen:0`), a warning says who is cut off.
 */
export async function crossSigned(options: RootsOptions, next: CaFiles, current: CaFiles, now: number, log: Logger): Promise<Buffer> {
  const [signer] = parseCertificates(next.certPem, CA_FILES.cert);
  const [before] = parseCertificates(current.certPem, CA_FILES.cert);
  // Renewed under the same key: the root before verifies what it signs as it stands.
  if (sameSubjectAndKey(signer!, before!)) return next.chainPem;
  try {
    const by = await acceptIssuer(copyOf(current), options, options.engine, now);
    const crossDer = await options.engine.createCertificate(crossSpec(signer!, by, options.trustDomain, now), by.key);
    const checker = new SignatureChecker();
    // What hangs on the new signer leads nowhere else: after a step back the one that steps back is such.
    const above = [before!, ...chainOf(current)].filter((each) => !checker.isSurelySignedBy(each, signer!));
    // Of several that certify the new signer OpenSSL and Envoy try the first and no other: the root that has been known longest.
    const [known, higher] = [
      above.filter((each) => sameSubjectAndKey(each, signer!)),
      above.filter((each) => !sameSubjectAndKey(each, signer!)),
    ];
    const chainPem = certificatesPem(unique([...chainOf(next), ...known, parseCertificate(crossDer), ...higher]).map(({ der }) => der));
    await assertLeadsTo(by, { ...next, chainPem }, current, options, now);
    return chainPem;
  } catch (cause) {
    log.warn('the signer before cannot certify the new one: clients that hold its root only will be refused', {
      before: before!.subject,
      cause,
      hint: 'give every client the new root before this signer signs',
    });
    return next.chainPem;
  }
}

/** As a peer would see it that trusts nothing but the root of the signer before. */
async function assertLeadsTo(by: Issuer, next: CaFiles, current: CaFiles, options: RootsOptions, now: number): Promise<void> {
  const known = rootsOf(current).filter((root) => keyHash(root) === by.rootKeySha256);
  await acceptIssuer(copyOf({ ...next, rootPem: certificatesPem(known.map(({ der }) => der)) }), options, options.engine, now);
}

/** The cert-chain.pem of a signer without what leads to none of the roots any more. */
export function withoutDeadEnds(files: CaFiles, roots: readonly Certificate[], now: number): Buffer {
  const pool = unique([...parseCertificates(files.certPem, CA_FILES.cert), ...chainOf(files)]);
  const leads = (each: Certificate) => {
    if (roots.some(({ sha256 }) => sha256 === each.sha256)) return true;
    try {
      verifyChain(
        each,
        pool.filter((other) => other !== each),
        roots,
        now,
      );
      return true;
    } catch {
      return false;
    }
  };
  return certificatesPem(
    chainOf(files)
      .filter(leads)
      .map(({ der }) => der),
  );
}

function chainOf({ chainPem }: CaFiles): Certificate[] {
  return chainPem.length === 0 ? [] : parseCertificates(chainPem, CA_FILES.chain);
}

function unique(certificates: readonly Certificate[]): Certificate[] {
  return [...new Map(certificates.map((each) => [each.sha256, each])).values()];
}
