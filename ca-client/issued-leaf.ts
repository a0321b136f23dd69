import { type Certificate, parseCertificate } from '../agent/identity/certificate';
import { type VerifiedChain, verifyChain } from '../agent/identity/chain';
import type { TrustBundle } from '../agent/identity/trust-bundle';

/** The certificates of a reply that can be read; what is damaged is left out. */
export function readableCertificates(certificatesDer: readonly Uint8Array[]): Certificate[] {
  return certificatesDer.flatMap((der) => {
    try {
      return [parseCertificate(der)];
    } catch {
      return [];
    }
  });
}

/** The certificate for the key of a request: its public key stands in the PKCS#10 as it stands in the certificate. */
export function leafOfRequest(
  certificates: readonly Certificate[],
  csrDer: Uint8Array,
): Certificate | undefined {
  const csr = Buffer.from(csrDer.buffer, csrDer.byteOffset, csrDer.byteLength);
  return certificates.find(({ publicKey }) => csr.includes(Buffer.from(publicKey.spkiDer)));
}

/** @throws AgentError ERR_PARSE, as `verifyChain`. */
export function verifyIssued(
  leaf: Certificate,
  certificates: readonly Certificate[],
  trust: TrustBundle,
  now: number,
): VerifiedChain {
  const roots = trust.rootsDer.map((der) => parseCertificate(der, 'root'));
  return verifyChain(
    leaf,
    certificates.filter((each) => each !== leaf),
    roots,
    now,
  );
}
