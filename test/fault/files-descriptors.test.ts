import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { type Daemon, startDaemon } from '../support/daemon';
import { processCpuMs } from '../support/process-cpu';
import { tempDir } from '../support/temp-dir';
import { until } from '../support/until';

let daemon: Daemon | undefined;
const sockets: Socket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await daemon?.stop();
});

test('E12 an agent with few file descriptors turns clients away, idles, still renews, and is all right when some are free again', async () => {
  const dir = tempDir();
  // As many as it needs, and few more.
  daemon = startDaemon({
    dir,
    through: ['sh', '-c', 'ulimit -n 48; exec "$@"', 'sh'],
    flags: ['--output-certs', 'certs'],
  });
  await daemon.ready();
  const first = (await daemon.status()).workloads[0]!.certificate!.serial;
  await daemon.event('certificate files written', (event) => event.serial === first);
  let turnedAway = 0;
  for (let count = 0; count < 100; count += 1) {
    // Read, or the end behind the server's first words is never seen.
    const socket = connect(daemon.sdsSocket)
      .on('error', () => undefined)
      .resume();
    sockets.push(socket.on('close', () => (turnedAway += 1)));
  }
  await until('clients that are turned away', async () => turnedAway > 0);
  const before = processCpuMs(daemon.pid);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  expect(processCpuMs(daemon.pid) - before).toBeLessThan(300);

  process.kill(daemon.pid, 'SIGHUP');
  const renewed = await daemon.event('certificate renewed');
  expect(renewed.serial).not.toBe(first);

  for (const socket of sockets.splice(0)) socket.destroy();
  await daemon.event('certificate files written', (event) => event.serial === renewed.serial);
  const leaf = new X509Certificate(readFileSync(join(dir, 'certs', 'cert-chain.pem')));
  expect(leaf.serialNumber.toLowerCase()).toBe(renewed.serial);
  expect(
    leaf.publicKey.equals(
      createPublicKey(createPrivateKey(readFileSync(join(dir, 'certs', 'key.pem')))),
    ),
  ).toBe(true);
  const again = daemon;
  await until('an agent that answers again', async () => (await again.status()).ready);
});
