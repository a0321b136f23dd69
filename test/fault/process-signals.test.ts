import { spawn, spawnSync } from 'node:child_process';
import { closeSync, constants, existsSync, openSync, readdirSync, writeSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { expect, test } from '@jest/globals';
import type { AgentStatus } from '../../agent/admin/agent-view';
import { callControl } from '../../agent/admin/control-client';
import { isBusy, underLoad } from '../support/load';
import { programCommand } from '../support/program';
import { openSdsStream } from '../support/sds-stream';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';
import { identity, startWorkloads } from '../support/workload-list';

const FULL = process.env.KEYTURN_TEST === 'full';
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const serialOf = (status: AgentStatus) => status.workloads[0]?.certificate?.serial;

test('G1 SIGTERM says goodbye to streams, removes the sockets and exits 0 in under a second', async () => {
  const daemon = testDaemon({ dir: tempDir() });
  await daemon.ready();
  const stream = openSdsStream(daemon.sdsSocket, ['default', 'ROOTCA']);
  await stream.response(1);
  const started = performance.now();
  const ended = await daemon.stop();
  expect(performance.now() - started).toBeLessThan(underLoad(1_000));
  expect(ended).toMatchObject({ code: 0, signal: null });
  expect(await stream.ended).toEqual({ goaway: true });
  expect(readdirSync(dirname(daemon.sdsSocket))).toEqual([]);
  expect(readdirSync(join(daemon.dir, 'var/run/keyturn'))).toEqual([]);
});

test('G1 SIGTERM at any moment of the start or in the middle of rotations ends cleanly', async () => {
  const rounds = FULL ? 40 : 8;
  for (let round = 0; round < rounds; round += 1) {
    const daemon = testDaemon({
      dir: tempDir(),
      flags: ['--output-certs', './certs', '--state-dir', './state'],
    });
    await daemon.event('agent starting');
    if (round % 2 === 0) {
      await pause((round / rounds) * 300);
    } else {
      await daemon.ready();
      const rotating = [1, 2, 3].map(() =>
        callControl(join(daemon.dir, 'var/run/keyturn/control.sock'), 'POST', '/rotate').catch(
          () => undefined,
        ),
      );
      await pause(round);
      void rotating;
    }
    const started = performance.now();
    const ended = await daemon.stop();
    expect({ round, ...ended }).toMatchObject({ round, code: 0 });
    expect(performance.now() - started).toBeLessThan(underLoad(1_500));
    // A stop that runs out of its time leaves sockets to the next start.
    const isLate = daemon.events.some(({ event }) => event === 'shutdown timed out');
    expect(isLate && !isBusy()).toBe(false);
    expect(existsSync(daemon.sdsSocket) && !isLate).toBe(false);
    expect(daemon.strayLines).toEqual([]);
  }
});

test('G1 SIGTERM while 200 workloads are being started leaves out those that wait, and no socket of the others', async () => {
  // On a machine too busy to end so many in the time that a stop may take, fewer show it.
  for (const count of [200, 100, 50, 25, 12]) {
    const names = Array.from({ length: count }, (_, index) => `w${index}`);
    const files = Object.fromEntries(names.map((name) => [name, [identity(name)]]));
    const state = ['--state-dir', './state', '--output-certs', './certs'];
    const world = startWorkloads(files, { flags: state });
    await world.daemon.event('workload started');
    expect(await world.daemon.stop()).toMatchObject({ code: 0, signal: null });
    const events = world.daemon.events.map(({ event }) => event);
    if (events.includes('shutdown timed out')) continue;
    expect(readdirSync(join(world.dir, 'var/run/secrets/workload-spiffe-uds'))).toEqual([]);
    expect(events.filter((event) => event === 'workload started').length).toBeLessThan(count);
    return;
  }
  expect(isBusy()).toBe(true);
});

test('G1 SIGTERM while the CA is away ends at once: no wait is left', async () => {
  const daemon = testDaemon({ dir: tempDir(), source: ['--ca', 'file'] });
  await daemon.event('admin server listening');
  const started = performance.now();
  expect(await daemon.stop()).toMatchObject({ code: 0 });
  expect(performance.now() - started).toBeLessThan(underLoad(1_000));
});

test('G1 SIGTERM while a first start makes keys of RSA-4096 ends in about a second, in order or by the signal itself', async () => {
  const flags = ['--ca-key-algorithm', 'rsa-4096', '--key-algorithm', 'rsa-4096'];
  const again = tempDir();
  for (const waitMs of [0, 150, 300, 450]) {
    const dir = waitMs === 450 ? again : tempDir();
    const daemon = testDaemon({ dir, flags });
    await daemon.event('agent starting');
    await pause(waitMs);
    const started = performance.now();
    const { code, signal } = await daemon.stop();
    expect([code, signal]).toEqual(signal === null ? [0, null] : [null, 'SIGTERM']);
    expect(performance.now() - started).toBeLessThan(underLoad(1_500));
  }
  // Nothing that was left behind stands in the way of the next start.
  const next = testDaemon({ dir: again });
  await next.ready();
  expect(await next.stop()).toMatchObject({ code: 0 });
});

test('G8 SIGUSR1 opens no inspector, SIGUSR2 and SIGPIPE harm nothing', async () => {
  const daemon = testDaemon({ dir: tempDir() });
  const before = serialOf(await daemon.ready());
  for (const signal of ['SIGUSR1', 'SIGUSR2', 'SIGPIPE', 'SIGUSR1'] as const) {
    process.kill(daemon.pid, signal);
    await pause(50);
  }
  expect(serialOf(await daemon.ready())).toBe(before);
  expect(daemon.strayLines).toEqual([]);
  await expect(reach(9_229)).resolves.toBe('ECONNREFUSED');
  expect((await daemon.stop()).code).toBe(0);
});

test('G8 SIGHUP turns the key', async () => {
  const daemon = testDaemon({ dir: tempDir() });
  const before = serialOf(await daemon.ready());
  process.kill(daemon.pid, 'SIGHUP');
  await until('another certificate', async () => serialOf(await daemon.status()) !== before);
  expect((await daemon.stop()).code).toBe(0);
});

test('G8 a SIGHUP that comes while the agent is starting turns the key as soon as it has started', async () => {
  const daemon = testDaemon({ dir: tempDir() });
  await daemon.event('agent starting');
  process.kill(daemon.pid, 'SIGHUP');
  expect(await daemon.event('certificate renewed')).toMatchObject({ reason: 'SIGHUP' });
  expect((await daemon.stop()).code).toBe(0);
});

test('F6 a storm of SIGHUPs is one wish a second', async () => {
  const daemon = testDaemon({ dir: tempDir() });
  const before = (await daemon.ready()).workloads[0]!.attempts;
  const startedAt = Date.now();
  for (let sent = 0; sent < 200; sent += 1) {
    process.kill(daemon.pid, 'SIGHUP');
    await new Promise((done) => setTimeout(done, 10));
  }
  const { attempts } = (await daemon.status()).workloads[0]!;
  const seconds = (Date.now() - startedAt) / 1_000;
  expect(attempts - before).toBeGreaterThanOrEqual(2);
  expect(attempts - before).toBeLessThanOrEqual(seconds + 1);
});

test('G8 an agent whose standard output and error are closed goes on, logging or not', async () => {
  const dir = tempDir();
  const identity = [
    '--trust-domain',
    'cluster.local',
    '--namespace',
    'shop',
    '--service-account',
    'cart',
  ];
  const [program, ...runtime] = programCommand();
  const child = spawn(
    program,
    [...runtime, 'run', '--ca', 'builtin', ...identity, '--admin-address', '127.0.0.1:0'],
    {
      cwd: dir,
      env: {},
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  const exited = new Promise<number | null>((resolve) => child.on('exit', resolve));
  child.stdout.destroy();
  child.stderr.destroy();
  const socket = join(dir, 'var/run/keyturn/control.sock');
  const status = () => callControl<AgentStatus>(socket, 'GET', '/status');
  const before = serialOf(
    await until(
      'a ready agent',
      async () => (await status().catch(() => undefined))?.ready && status(),
    ),
  );
  for (let round = 0; round < 5; round += 1) {
    // Each renewal logs.
    await callControl(socket, 'POST', '/rotate', { reason: `round ${round}` });
  }
  expect(serialOf(await status())).not.toBe(before);
  child.kill('SIGTERM');
  expect(await exited).toBe(0);
});

test('G8 an agent whose log nobody reads goes on: the line is lost, not the renewal', async () => {
  const dir = tempDir();
  const fifo = join(dir, 'log');
  spawnSync('mkfifo', [fifo]);
  // Opened for both, so that there is a reader who never reads; filled to the brim.
  const reader = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
  expect(() => {
    for (;;) writeSync(reader, 'x'.repeat(4_096));
  }).toThrow('EAGAIN');
  const log = openSync(fifo, constants.O_WRONLY);
  const [program, ...runtime] = programCommand();
  const child = spawn(
    program,
    [...runtime, 'run', '--ca', 'builtin', '--admin-address', '127.0.0.1:0'],
    {
      cwd: dir,
      env: {},
      stdio: ['ignore', 'ignore', log],
    },
  );
  try {
    const exited = new Promise<number | null>((resolve) => child.on('exit', resolve));
    const socket = join(dir, 'var/run/keyturn/control.sock');
    const status = () => callControl<AgentStatus>(socket, 'GET', '/status');
    const before = serialOf(
      await until(
        'a ready agent',
        async () => (await status().catch(() => undefined))?.ready && status(),
      ),
    );
    await callControl(socket, 'POST', '/rotate');
    expect(serialOf(await status())).not.toBe(before);
    child.kill('SIGTERM');
    expect(await exited).toBe(0);
  } finally {
    child.kill('SIGKILL');
    closeSync(log);
    closeSync(reader);
  }
});

function reach(port: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('connect', () => {
      socket.destroy();
      resolve('connected');
    });
    socket.on('error', (err: NodeJS.ErrnoException) => resolve(err.code ?? 'error'));
  });
}
