import { directEngine } from './direct-engine';
import type { CertificateEngine, EngineName } from './engine';

/** Loads an engine by name. Only the two that need @peculiar/x509 pay for it: 60 to 130 ms and 10 to 20 MB at the start. */
export async function loadEngine(name: EngineName): Promise<CertificateEngine> {
  if (name === 'direct') return directEngine;
  const { createPeculiarEngine } = await import('./x509');
  return createPeculiarEngine(name);
}
