import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import type { Daemon } from '../support/daemon';
import { underLoad } from '../support/load';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';

const SERVE = [
  'ca',
  'serve',
  '--ca-dir',
  './ca',
  '--admin-address',
  '127.0.0.1:0',
  '--log-format',
  'json',
];

/** A kubeconfig of a cluster where nobody listens. */
function emptyCluster(dir: string): string {
  const path = join(dir, 'kubeconfig');
  const [name, server] = ['x', 'https://127.0.0.1:1'];
  const config = {
    'current-context': name,
    contexts: [{ name, context: { cluster: name, user: name } }],
    clusters: [{ name, cluster: { server } }],
    users: [{ name, user: { token: 'token' } }],
  };
  writeFileSync(path, JSON.stringify(config));
  return path;
}

const DAEMONS: Record<
  string,
  (dir: string) => {
    readonly args: readonly string[];
    readonly started: string;
    readonly name: string;
  }
> = {
  'ca serve': () => ({
    args: [...SERVE, '--listen', '127.0.0.1:0'],
    started: 'ca server started',
    name: 'ca server',
  }),
  approver: (dir) => ({
    args: [
      'approver',
      '--signer-name',
      'a.example/b',
      '--kubeconfig',
      emptyCluster(dir),
      '--admin-address',
      '127.0.0.1:0',
      '--log-format',
      'json',
    ],
    started: 'watch of requests failed',
    name: 'approver',
  }),
};

describe.each(Object.keys(DAEMONS))('keyturn %s', (which) => {
  test.each(['SIGTERM', 'SIGINT'] as const)(
    'ends by %s within a second, with code 0, having said so',
    async (signal) => {
      const dir = tempDir();
      const { args, started, name } = DAEMONS[which]!(dir);
      const daemon = testDaemon({ dir, args });
      await daemon.event(started);
      const before = performance.now();
      expect(await daemon.kill(signal)).toMatchObject({ code: 0, stdout: '' });
      expect(performance.now() - before).toBeLessThan(underLoad(1_000));
      expect(daemon.events.at(-1)).toMatchObject({ event: `${name} stopped` });
      expect(daemon.strayLines).toEqual([]);
    },
  );

  test('takes no harm from SIGHUP, SIGUSR1 and SIGUSR2', async () => {
    const dir = tempDir();
    const { args, started } = DAEMONS[which]!(dir);
    const daemon = testDaemon({ dir, args });
    await daemon.event(started);
    for (const signal of ['SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const)
      process.kill(daemon.pid, signal);
    expect(await daemon.stop()).toMatchObject({ code: 0 });
  });

  test('holds no keys in a process that the environment has let others into', async () => {
    const dir = tempDir();
    const { args } = DAEMONS[which]!(dir);
    const { code, stderr } = await testDaemon({
      dir,
      args,
      env: { NODE_OPTIONS: '--tls-min-v1.0' },
    }).finished;
    expect({ code, stderr }).toEqual({
      code: 78,
      stderr: expect.stringContaining('NODE_OPTIONS: must not have --tls-min-v1.0'),
    });
  });
});

test('an approver whose cluster is away lives, is not ready and says why, and counts what it could not follow', async () => {
  const dir = tempDir();
  const approver = testDaemon({ dir, args: DAEMONS.approver!(dir).args });
  await approver.event('watch of requests failed');
  expect(await approver.http('/healthz/live')).toMatchObject({ status: 200 });
  expect(await approver.http('/healthz/ready')).toMatchObject({
    status: 503,
    body: expect.stringContaining('https://127.0.0.1:1'),
  });
  const { body } = await approver.http('/metrics');
  expect(body).toMatch(/^keyturn_ready 0$/m);
  expect(body).toMatch(/^keyturn_approver_watching 0$/m);
  expect(body).toMatch(/^keyturn_approver_failures_total\{.*operation="follow".*\} [1-9]/m);
});

test('a second ca serve on one port ends with 71, and the log says so', async () => {
  const dir = tempDir();
  const first: Daemon = testDaemon({ dir, args: [...SERVE, '--listen', '127.0.0.1:0'] });
  const { address } = await first.event('ca server started');
  const second = testDaemon({ dir, args: [...SERVE, '--listen', String(address)] });
  expect(await second.finished).toMatchObject({ code: 71, stdout: '' });
  expect(second.events.at(-1)).toMatchObject({
    level: 'error',
    event: 'the ca server failed to start',
  });
});
