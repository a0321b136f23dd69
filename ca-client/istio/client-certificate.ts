import { AgentError, errorText, invalid } from '../../agent/base/errors';
import { iso } from '../../agent/base/iso';
import { readSmallFile } from '../../agent/base/read-file';
import { parseCertificate, parseCertificates } from '../../agent/identity/certificate';
import { SKEW_TOLERANCE_MS, verifyChain } from '../../agent/identity/chain';
import { readPrivateKey } from '../../agent/identity/keys';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import { leadsTo, type ServerVerifier } from './server-verifier';

/** What we may present in the TLS handshake with the CA. */
export interface ClientCertificate {
  /** Leaf first. */
  readonly chainPem: Buffer;
  readonly keyPem: Buffer;
  /** Epoch milliseconds, of the leaf. */
  readonly notBeforeAt: number;
  readonly notAfterAt: number;
  /** A revocation list that we hold names it: it proves nothing any more. */
  readonly isRevoked?: boolean;
  /** Which CA issued it, as in `--ca`; undefined for one that somebody else put here. */
  readonly source?: string;
}

/** Two reads, because key and chain are two files and may be replaced between one and the other. */
const READS = 2;

/**
 * Reads `key.pem` and `cert-chain.pem` of a directory (PROV_CERT).
 *
 * @returns Undefined where there is neither: on a machine's first run they are yet to come.
 * @throws  AgentError ERR_TOKEN (retry soon): unreadable, malformed, or not of one key.
 */
export async function readClientCertificate(dir: string): Promise<ClientCertificate | undefined> {
  for (let reads = 1; ; reads += 1) {
    try {
      return await readPair(dir);
    } catch (cause) {
      if (reads < READS) continue;
      if (await isEmpty(dir)) return undefined;
      throw new AgentError(
        'ERR_TOKEN',
        `read the client certificate in ${dir}: ${errorText(cause)}`,
        { retry: 'soon', cause },
      );
    }
  }
}

async function readPair(dir: string): Promise<ClientCertificate> {
  const read = (name: string) =>
    readSmallFile(`${dir}/${name}`, { field: name, code: 'ERR_TOKEN' });
  const [chainPem, keyPem] = [await read('cert-chain.pem'), await read('key.pem')];
  const [leaf] = parseCertificates(chainPem, 'cert-chain.pem');
  const key = readPrivateKey(keyPem, 'key.pem');
  if (Buffer.compare(key.spkiDer, leaf!.publicKey.spkiDer) !== 0)
    throw invalid('ERR_TOKEN', 'key.pem', 'must belong to the first certificate of cert-chain.pem');
  return { chainPem, keyPem, notBeforeAt: leaf!.notBeforeAt, notAfterAt: leaf!.notAfterAt };
}

async function isEmpty(dir: string): Promise<boolean> {
  const { lstat } = await import('node:fs/promises');
  const found = await Promise.all(
    ['key.pem', 'cert-chain.pem'].map((name) => lstat(`${dir}/${name}`).catch(() => undefined)),
  );
  return found.every((each) => each === undefined);
}

/**
 * Why a certificate must not be presented now: a server that cannot verify it may end the handshake, although a token would have done.
 * TLS 1.3 tells so only after the handshake, and it looks like a network fault.
 *
 * @param roots  Those that the CA's server may know: of the mesh, and of the server itself.
 * @returns      The rule that it breaks, or undefined where it may be presented.
 */
export function presentingObstacle(
  certificate: ClientCertificate,
  roots: readonly TrustBundle[],
  now: number,
): string | undefined {
  if (certificate.isRevoked) return 'must not be revoked: a revocation list names it';
  if (now >= certificate.notAfterAt)
    return `must not be expired: it ended at ${iso(certificate.notAfterAt)}`;
  if (now < certificate.notBeforeAt - SKEW_TOLERANCE_MS) return 'must be valid now';
  try {
    const [leaf, ...others] = parseCertificates(certificate.chainPem, 'cert-chain.pem');
    const anchors = roots
      .flatMap(({ rootsDer }) => rootsDer)
      .map((der) => parseCertificate(der, 'root'));
    verifyChain(leaf!, others, anchors, now);
    return undefined;
  } catch (caught) {
    return errorText(caught);
  }
}

/**
 * Lets a certificate that has ended be shown to nobody but the authority that issued it: a server whose own certificate leads to the same
 * issuer. Any other could only refuse it, and some would end the connection.
 *
 * @throws AgentError where its issuer is not known any more.
 */
export function issuerJudge(
  { chainPem, notAfterAt }: ClientCertificate,
  roots: readonly TrustBundle[],
  now: () => number,
): ServerVerifier {
  const [leaf, ...others] = parseCertificates(chainPem, 'cert-chain.pem');
  const anchors = roots
    .flatMap(({ rootsDer }) => rootsDer)
    .map((der) => parseCertificate(der, 'root'));
  const { path, root } = verifyChain(leaf!, others, anchors, notAfterAt - 1);
  const issuer = path[1] ?? root;
  return leadsTo([issuer], issuer.sha256, now, {
    what: 'does not lead to the issuer of our certificate, which has ended and was not shown',
    hint: 'take a new join token here (keyturn vm join), or name the address of the authority that issued the certificate',
  });
}
