import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { connect, type PeerCertificate } from 'node:tls';
import { describe, expect } from '@jest/globals';
import { KEY_ALGORITHMS, type KeyAlgorithm } from '../../agent/identity/keys';
import { type Daemon, startDaemon } from '../support/daemon';
import { startEnvoy } from '../support/envoy';
import { serverConfig } from '../support/envoy-config';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { until } from '../support/until';

/** What Node says of a peer's public key: the curve and its size, or the size of the modulus. */
const PUBLIC_KEY: Readonly<
  Record<KeyAlgorithm, { readonly curve?: string; readonly bits: number }>
> = {
  'ecdsa-p256': { curve: 'prime256v1', bits: 256 },
  'ecdsa-p384': { curve: 'secp384r1', bits: 384 },
  'rsa-2048': { bits: 2048 },
  'rsa-3072': { bits: 3072 },
  'rsa-4096': { bits: 4096 },
};

describe('a real Envoy', () => {
  testWith('envoy')('shows and serves a certificate of each key algorithm', async () => {
    const dir = tempDir();
    const agents = Object.fromEntries(
      KEY_ALGORITHMS.map((algorithm) => [algorithm, startAgent(dir, algorithm)]),
    );
    try {
      const serials = new Map<string, string>();
      for (const [algorithm, agent] of Object.entries(agents)) {
        serials.set(algorithm, (await agent.ready()).workloads[0]!.certificate!.serial);
      }
      const sides = Object.entries(agents).map(
        ([name, agent]) => [name, { sds: { socket: agent.sdsSocket }, allow: undefined }] as const,
      );
      const envoy = await startEnvoy({
        dir,
        name: 'envoy',
        config: serverConfig(Object.fromEntries(sides)),
      });
      try {
        await until(
          'five certificates',
          async () => (await envoy.certs()).length === KEY_ALGORITHMS.length,
        );
        const shown = (await envoy.certs()).map((context) => context.chain[0]!);
        expect(shown.map((leaf) => trimmed(leaf.serial)).sort()).toEqual(
          [...serials.values()].map(trimmed).sort(),
        );
        for (const leaf of shown)
          expect(leaf.uris).toEqual(['spiffe://cluster.local/ns/shop/sa/cart']);
        for (const algorithm of KEY_ALGORITHMS) {
          const peer = await peerCertificate(await envoy.port(algorithm));
          const { curve, bits } = PUBLIC_KEY[algorithm];
          expect({
            serial: trimmed(peer.serialNumber),
            curve: peer.asn1Curve,
            bits: peer.bits,
          }).toEqual({
            serial: trimmed(serials.get(algorithm)!),
            curve,
            bits,
          });
        }
      } finally {
        await envoy.stop();
      }
    } finally {
      for (const agent of Object.values(agents)) await agent.stop();
    }
  });
});

function startAgent(dir: string, algorithm: KeyAlgorithm): Daemon {
  const own = join(dir, algorithm);
  mkdirSync(own);
  return startDaemon({
    dir: own,
    flags: ['--key-algorithm', algorithm, '--ca-dir', join(dir, 'ca')],
  });
}

/** Whom a TLS port shows, without judging it. */
function peerCertificate(
  port: number,
): Promise<PeerCertificate & { readonly asn1Curve?: string; readonly bits?: number }> {
  return new Promise((done, failed) => {
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false }, () => {
      done(socket.getPeerCertificate());
      socket.destroy();
    });
    socket.on('error', failed);
  });
}

function trimmed(serial: string): string {
  return serial.toLowerCase().replace(/^0+/, '');
}
