import { join } from 'node:path';
import { describe, expect } from '@jest/globals';
import { openNotifySocket } from '../support/notify-socket';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';

const test = testWith('systemd-tools');
const ID = 'spiffe://cluster.local/ns/shop/sa/cart';

describe('G14 keyturn run under a service manager', () => {
  test.each(['path', 'abstract name'])(
    'says that it is ready when SDS serves, and which certificate it has, over a %s',
    async (kind) => {
      const dir = tempDir();
      const name = kind === 'path' ? join(dir, 'notify') : `@keyturn-test-${process.pid}-run`;
      const socket = await openNotifySocket(name);
      const agent = testDaemon({ dir, env: { NOTIFY_SOCKET: name } });
      const ready = await socket.datagram(/^READY=1/);
      const { certificate } = (await agent.ready()).workloads[0]!;
      const said = ({ serial, notAfter, renewAt }: NonNullable<typeof certificate>) =>
        `STATUS=${ID}: certificate ${serial} until ${notAfter}, renewal at ${renewAt}`;
      expect(ready).toBe(`READY=1\n${said(certificate!)}`);
      await agent.command('rotate');
      const renewed = (await agent.ready()).workloads[0]!.certificate!;
      expect(await socket.datagram(new RegExp(`^STATUS=.*${renewed.serial}`))).toBe(said(renewed));
      expect((await agent.stop()).code).toBe(0);
      expect(await socket.datagram(/^STOPPING=1/)).toBe('STOPPING=1\nSTATUS=stopping');
      expect(socket.datagrams).toHaveLength(3);
    },
  );

  test('a CA that is away is no failed start: it is ready without a certificate, and says why', async () => {
    const dir = tempDir();
    const socket = await openNotifySocket(join(dir, 'notify'));
    const source = ['--ca', 'istiod', '--ca-address', '127.0.0.1:1', '--ca-root', 'root.pem'];
    testDaemon({ dir, source, env: { NOTIFY_SOCKET: join(dir, 'notify') } });
    expect(await socket.datagram(/no certificate: /)).toMatch(
      new RegExp(`^(READY=1\n)?STATUS=${ID}: no certificate: .*root\\.pem`),
    );
    expect(socket.datagrams[0]).toMatch(/^READY=1\nSTATUS=/);
  });

  test('feeds the watchdog thrice in its time, and no longer when it is stopped', async () => {
    const dir = tempDir();
    const socket = await openNotifySocket(join(dir, 'notify'));
    const agent = testDaemon({
      dir,
      env: { NOTIFY_SOCKET: join(dir, 'notify'), WATCHDOG_USEC: '900000' },
    });
    await agent.ready();
    const fed = () => socket.datagrams.filter((each) => each === 'WATCHDOG=1').length;
    const before = fed();
    await new Promise((done) => setTimeout(done, 3_000));
    expect(fed() - before).toBeGreaterThanOrEqual(5);
    expect(fed() - before).toBeLessThanOrEqual(11);
    process.kill(agent.pid, 'SIGSTOP');
    await new Promise((done) => setTimeout(done, 500));
    const stopped = fed();
    await new Promise((done) => setTimeout(done, 1_000));
    expect(fed()).toBe(stopped);
  });

  test('does not care where nobody listens', async () => {
    const dir = tempDir();
    const agent = testDaemon({ dir, env: { NOTIFY_SOCKET: join(dir, 'nobody') } });
    await agent.ready();
    await agent.event('service manager notification failed');
    expect((await agent.stop()).code).toBe(0);
  });
});

test('G14 keyturn ca serve says that it is ready when it listens, for whom and until when', async () => {
  const dir = tempDir();
  const socket = await openNotifySocket(join(dir, 'notify'));
  const args = [
    'ca',
    'serve',
    '--ca-dir',
    './ca',
    '--listen',
    '127.0.0.1:0',
    '--admin-address',
    '127.0.0.1:0',
    '--log-format',
    'json',
  ];
  const server = testDaemon({ dir, args, env: { NOTIFY_SOCKET: join(dir, 'notify') } });
  const { address } = await server.event('ca server started');
  expect(await socket.datagram(/^READY=1/)).toMatch(
    new RegExp(`^READY=1\nSTATUS=certifying for cluster.local at ${address}, signer until 20..-`),
  );
  await server.stop();
  await socket.datagram(/^STOPPING=1/);
});
