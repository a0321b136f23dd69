import { createPrivateKey, X509Certificate } from 'node:crypto';
import type { Daemon } from './daemon';
import { getSecret, type Received } from './sds-client';

/** Serial number of a leaf in PEM, as the agent writes it. */
export function leafSerial(chainPem: string | undefined): string {
  return new X509Certificate(chainPem!).serialNumber.toLowerCase();
}

/** Turns the key by SIGHUP and resolves with the new serial once the keeper has it. */
export async function rotate(daemon: Daemon): Promise<string> {
  const before = new Set(
    daemon.events.filter(({ scope }) => scope === 'keeper').map(({ serial }) => serial),
  );
  process.kill(daemon.pid, 'SIGHUP');
  const { serial } = await daemon.event('certificate renewed', (each) => !before.has(each.serial));
  return String(serial);
}

/** What every fault leaves behind: the same process, nothing that it calls its own fault, and a good client that gets its identity. */
export async function expectWell(daemon: Daemon): Promise<void> {
  daemon.assertAlive();
  const secret = await getSecret(daemon.sdsSocket).catch((caught) => {
    daemon.assertAlive();
    throw caught;
  });
  const leaf = new X509Certificate(secret.chainPem!);
  if (!leaf.checkPrivateKey(createPrivateKey(secret.keyPem!)))
    throw new Error('the key does not belong to the certificate');
  daemon.assertAlive();
  const faults = daemon.events.filter(({ level }) => level === 'error');
  if (faults.length > 0) throw new Error(`the daemon logged ${JSON.stringify(faults[0])}`);
  if (daemon.strayLines.length > 0)
    throw new Error(`the daemon wrote ${daemon.strayLines.join('\n')}`);
}

/** The streams that the daemon says are open. */
export async function openStreams(daemon: Daemon): Promise<number> {
  return (await daemon.status()).workloads[0]!.sds.streams.length;
}

/**
 * Judges everything that one proxy is sent (case D24): every key belongs to its leaf, and every leaf verifies to the roots that were sent
 * last before it.
 */
export class PushOracle {
  #roots: readonly X509Certificate[] = [];
  checked = 0;
  readonly serials = new Set<string>();

  judge(response: Received): void {
    for (const secret of response.secrets) {
      if (secret.rootsPem !== undefined) this.#roots = certificatesOf(secret.rootsPem);
      if (secret.chainPem === undefined) continue;
      const chain = certificatesOf(secret.chainPem);
      const leaf = chain[0]!;
      if (!leaf.checkPrivateKey(createPrivateKey(secret.keyPem!)))
        throw new Error(`the key does not belong to leaf ${leaf.serialNumber}`);
      if (!verifies(chain, this.#roots))
        throw new Error(
          `leaf ${leaf.serialNumber} does not verify to the roots that were sent last`,
        );
      this.serials.add(leaf.serialNumber.toLowerCase());
      this.checked += 1;
    }
  }
}

function verifies(chain: readonly X509Certificate[], roots: readonly X509Certificate[]): boolean {
  for (const [index, certificate] of chain.entries()) {
    if (roots.some((root) => certificate.checkIssued(root) && certificate.verify(root.publicKey)))
      return true;
    const next = chain[index + 1];
    if (!next || !certificate.checkIssued(next) || !certificate.verify(next.publicKey))
      return false;
  }
  return false;
}

function certificatesOf(pem: string): X509Certificate[] {
  return pem
    .match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g)!
    .map((block) => new X509Certificate(block));
}
