import { join } from 'node:path';
import { expect } from '@jest/globals';
import { systemClock } from '../../../agent/base/clock';
import type { Logger } from '../../../agent/base/log';
import { noLog } from '../../../agent/base/log';
import { noMetrics } from '../../../agent/base/metrics';
import { createServiceManager } from '../../../agent/cli/service-manager';
import { openNotifySocket } from '../../support/notify-socket';
import { testWith } from '../../support/peers';
import { tempDir } from '../../support/temp-dir';

const test = testWith('systemd-tools');

function depsWith(log: Partial<Logger>) {
  return { clock: systemClock, random: () => 0.5, metrics: noMetrics, log: { ...noLog, ...log } };
}

const health = {
  summary: () => 'well',
  stalled: (): string | undefined => undefined,
  onChange: () => () => undefined,
};

test('a daemon that is stalled does not feed the watchdog, says why, and feeds it again when it is not', async () => {
  const name = join(tempDir(), 'notify');
  const socket = await openNotifySocket(name);
  const errors: unknown[] = [];
  let because: string | undefined = 'istiod: an attempt has hung since 1970-01-01T00:00:00.000Z';
  const log = { error: (event: string, facts?: object) => errors.push({ event, ...facts }) };
  const manager = createServiceManager(
    { NOTIFY_SOCKET: name, WATCHDOG_USEC: '600000' },
    depsWith(log),
  )!;
  manager.started({ ...health, stalled: () => because });
  await systemClock.sleepUntil(systemClock.now() + 500);
  expect(socket.datagrams).toEqual(['READY=1\nSTATUS=well']);
  expect(errors).toEqual([{ event: 'watchdog withheld', because }]);
  because = undefined;
  await socket.datagram(/^WATCHDOG=1$/);
  await manager.stopping();
  expect(socket.datagrams.at(-1)).toBe('STOPPING=1\nSTATUS=stopping');
});

test('nobody is fed whose watchdog is for another process', async () => {
  const name = `@keyturn-test-${process.pid}`;
  const socket = await openNotifySocket(name);
  const manager = createServiceManager(
    { NOTIFY_SOCKET: name, WATCHDOG_USEC: '30000', WATCHDOG_PID: '1' },
    depsWith({}),
  )!;
  manager.started(health);
  await systemClock.sleepUntil(systemClock.now() + 200);
  await manager.stopping();
  expect(socket.datagrams).toEqual(['READY=1\nSTATUS=well', 'STOPPING=1\nSTATUS=stopping']);
});

test('a status is one line of a thousand characters, whatever an error says', async () => {
  const name = join(tempDir(), 'notify');
  const socket = await openNotifySocket(name);
  const manager = createServiceManager({ NOTIFY_SOCKET: name }, depsWith({}))!;
  manager.started({ ...health, summary: () => `a\nREADY=0\u0000\r${'x'.repeat(5_000)}` });
  await manager.stopping();
  expect(socket.datagrams[0]).toBe(`READY=1\nSTATUS=a READY=0 ${'x'.repeat(990)}`);
});

test.each(['vsock:2:1', 'relative/path', '/', `/${'x'.repeat(107)}`])(
  'NOTIFY_SOCKET %p is no socket: it is said, and nobody is told',
  async (name) => {
    const warnings: string[] = [];
    const log = { warn: (event: string) => warnings.push(event) };
    expect(createServiceManager({ NOTIFY_SOCKET: name }, depsWith(log))).toBeUndefined();
    expect(warnings).toEqual(['service manager not notified: NOTIFY_SOCKET is not a Unix socket']);
  },
);

test('a service manager that is gone is complained of once', async () => {
  const warnings: string[] = [];
  const log = { warn: (event: string) => warnings.push(event) };
  const manager = createServiceManager(
    { NOTIFY_SOCKET: join(tempDir(), 'nobody') },
    depsWith(log),
  )!;
  manager.started(health);
  await manager.stopping();
  expect(warnings).toEqual(['service manager notification failed']);
});
