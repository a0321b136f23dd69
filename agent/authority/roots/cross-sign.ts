import {
  type Certificate,
  certificatesPem,
  parseCertificate,
  parseCertificates,
} from '../../identity/certificate';
import { sameSubjectAndKey, verifyChain } from '../../identity/chain';
import { SignatureChecker } from '../../identity/signature-checker';
import { crossSpec } from '../certificate-specs';
import { CA_FILES, type CaFiles } from '../directory/ca-files';
import { acceptIssuer } from '../issuer';
import { copyOf, type RootsOptions, rootsOf } from './root-facts';

/** What a signer that takes over shows above its leaves, and to whom it means nothing all the same. */
export interface Succession {
  readonly chainPem: Buffer;
  /** Roots that the signer before leads to and the new one does not: who holds these only refuses what is signed. */
  readonly lost: readonly Certificate[];
}

/**
 * The cert-chain.pem of a signer that takes over from another. Where it leads to fewer roots than that one, its key is certified by the signer
 * before: this goes out behind every leaf, so that a peer whose copy of the roots is as old as the old root verifies the leaf, and the server
 * that shows it, by that one. A signer that may not certify CAs (`pathlen:0`) cannot; one that has expired has nothing to lose.
 */
export async function crossSigned(
  options: RootsOptions,
  next: CaFiles,
  current: CaFiles,
  now: number,
): Promise<Succession> {
  const known = await thoseLedTo(options, current, rootsOf(current), now);
  if (isEqual(await thoseLedTo(options, next, known, now), known))
    return { chainPem: next.chainPem, lost: [] };
  const chainPem = await withCross(options, next, current, now);
  const led = await thoseLedTo(options, { ...next, chainPem }, known, now);
  return isEqual(led, known)
    ? { chainPem, lost: [] }
    : { chainPem: next.chainPem, lost: known.filter((each) => !led.includes(each)) };
}

async function withCross(
  options: RootsOptions,
  next: CaFiles,
  current: CaFiles,
  now: number,
): Promise<Buffer> {
  const [signer] = parseCertificates(next.certPem, CA_FILES.cert);
  const [before] = parseCertificates(current.certPem, CA_FILES.cert);
  const by = await acceptIssuer(copyOf(current), options, options.engine, now);
  const crossDer = await options.engine.createCertificate(
    crossSpec(signer!, by, options.trustDomain, now),
    by.key,
  );
  const checker = new SignatureChecker();
  // What hangs on the new signer leads nowhere else: after a step back the one that steps back is such.
  const above = [before!, ...chainOf(current)].filter(
    (each) => !checker.isSurelySignedBy(each, signer!),
  );
  // Of several that certify the new signer OpenSSL and Envoy try the first and no other: the root that has been known longest.
  const certifySigner = above.filter((each) => sameSubjectAndKey(each, signer!));
  const chain = unique([...chainOf(next), ...certifySigner, parseCertificate(crossDer), ...above]);
  return certificatesPem(chain.map(({ der }) => der));
}

/** Those of the roots by which, alone, a peer verifies what a signer signs. */
async function thoseLedTo(
  options: RootsOptions,
  files: CaFiles,
  roots: readonly Certificate[],
  now: number,
): Promise<Certificate[]> {
  const verdicts = roots.map((root) =>
    acceptIssuer(
      copyOf({ ...files, rootPem: certificatesPem([root.der]) }),
      options,
      options.engine,
      now,
    ).then(
      () => [root],
      () => [],
    ),
  );
  return (await Promise.all(verdicts)).flat();
}

const isEqual = (some: readonly Certificate[], all: readonly Certificate[]): boolean =>
  some.length === all.length;

/** The cert-chain.pem of a signer without what leads to none of the roots any more. */
export function withoutDeadEnds(
  files: CaFiles,
  roots: readonly Certificate[],
  now: number,
): Buffer {
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
