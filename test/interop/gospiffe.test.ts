import { afterEach, expect } from '@jest/globals';
import { type Daemon, startDaemon } from '../support/daemon';
import { runGospiffe, startGospiffe } from '../support/gospiffe';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';

const ID = 'spiffe://cluster.local/ns/shop/sa/cart';
const daemons: Daemon[] = [];

const start = async (flags: readonly string[] = []) => {
  const daemon = startDaemon({ dir: tempDir(), flags });
  daemons.push(daemon);
  await daemon.ready();
  return daemon;
};

afterEach(async () => {
  for (const daemon of daemons.splice(0)) await daemon.stop();
});

testWith('gospiffe')('go-spiffe gets the certificate, verifies it, and sees each rotation', async () => {
  const daemon = await start(['--svid-hint', 'internal']);
  const source = startGospiffe(daemon.sdsSocket, ['x509', '3']);
  const serialNow = async () => (await daemon.status()).workloads[0]!.certificate!.serial.replace(/^0+/, '');
  expect(await source.next()).toEqual({ id: ID, serial: await serialNow(), hint: 'internal' });
  for (let turn = 0; turn < 2; turn += 1) {
    await daemon.command('rotate');
    expect(await source.next()).toEqual({ id: ID, serial: await serialNow(), hint: 'internal' });
  }
  expect((await source.stop()).code).toBe(0);
});

testWith('gospiffe')('go-spiffe comes again after a restart of the agent, by itself', async () => {
  const daemon = await start();
  const source = startGospiffe(daemon.sdsSocket, ['x509', '2']);
  const first = await source.next();
  await daemon.stop();
  const again = startDaemon({ dir: daemon.dir });
  daemons.push(again);
  const second = await source.next();
  expect(second.id).toBe(ID);
  expect(second.serial).not.toBe(first.serial);
});

testWith('gospiffe')('two programs speak mutual TLS with the identities of their agents', async () => {
  const [one, other] = await Promise.all([start(), start()]);
  const server = startGospiffe(one.sdsSocket, ['serve']);
  const { address } = await server.next();
  const { facts } = await runGospiffe(one.sdsSocket, ['dial', String(address)]);
  expect(facts).toEqual([{ server: ID, greeting: `hello ${ID}` }]);
  expect(await server.next()).toEqual({ peer: ID });
  // The same trust domain by name, of another root.
  const stranger = await runGospiffe(other.sdsSocket, ['dial', String(address)]);
  expect(stranger.code).toBe(1);
  expect(await server.next()).toHaveProperty('refused');
  await server.stop();
});
