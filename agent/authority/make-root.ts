import { assertClockIsSet } from '../base/clock-floor';
import { writePem } from '../base/pem';
import { Secret } from '../base/secret';
import type { CertificateEngine } from '../identity/engine';
import { type KeyAlgorithm, privateKeyPem } from '../identity/keys';
import { rootSpec } from './certificate-specs';
import type { NewCa } from './directory/create-ca-files';

/**
 * Makes a key and its self-signed root for a trust domain, by default for ten years.
 *
 * @throws AgentError ERR_TOO_EARLY while the clock cannot be right.
 */
export async function makeRoot(
  engine: CertificateEngine,
  trustDomain: string,
  algorithm: KeyAlgorithm,
  now: number,
  lifetimeMs?: number,
): Promise<NewCa> {
  assertClockIsSet(`make a root for ${trustDomain}`, now);
  const key = await engine.generateKeyPair(algorithm);
  const rootDer = await engine.createCertificate(
    rootSpec(key.spkiDer, trustDomain, now, lifetimeMs),
    key,
  );
  return {
    keyPem: new Secret(privateKeyPem(key, 'pkcs8')),
    rootPem: writePem('CERTIFICATE', rootDer),
  };
}
