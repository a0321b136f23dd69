import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import type { AgentStatus } from '../../agent/admin/agent-view';
import { callControl } from '../../agent/admin/control-client';
import type { Daemon } from '../support/daemon';
import { testWhere } from '../support/peers';
import { FORM, type ProgramForm, programCommand } from '../support/program';
import { openSdsStream } from '../support/sds-stream';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';

const LIMIT = 64 * 1_048_576;
/** What the runtime does by itself in a container of `LIMIT`; JavaScriptCore collects by the memory that it believes there is. */
const SMALL_HEAP: Readonly<Record<ProgramForm, Readonly<Record<string, string>>>> = {
  node: { NODE_OPTIONS: '--max-old-space-size=24 --max-semi-space-size=1' },
  standalone: { BUN_JSC_forceRAMSize: String(LIMIT) },
};
const LOAD_MS = process.env.KEYTURN_TEST === 'full' ? 60_000 : 4_000;
const CGROUPS = '/sys/fs/cgroup';

/** A memory cgroup of `LIMIT` bytes that a process can be put into, or undefined where this machine lets us make none. */
function memoryCgroup(): { readonly path: string; peak(): number; kills(): number } | undefined {
  const unified = existsSync(join(CGROUPS, 'cgroup.controllers'));
  const path = join(CGROUPS, ...(unified ? [] : ['memory']), `keyturn-test-${process.pid}`);
  const file = (name: string) => readFileSync(join(path, name), 'utf8');
  const number = (text: string, key: RegExp) => Number(key.exec(text)?.[1] ?? Number.NaN);
  try {
    mkdirSync(path);
    writeFileSync(join(path, unified ? 'memory.max' : 'memory.limit_in_bytes'), String(LIMIT));
    return {
      path,
      peak: () => Number(file(unified ? 'memory.peak' : 'memory.max_usage_in_bytes')),
      kills: () =>
        number(file(unified ? 'memory.events' : 'memory.oom_control'), /^oom_kill (\d+)$/m),
    };
  } catch {
    if (existsSync(path)) rmdirSync(path);
    return undefined;
  }
}

/** Streams that come and go, scrapes and renewals without a pause. */
async function load(daemon: Daemon, ms: number, each: () => void): Promise<void> {
  const end = performance.now() + ms;
  const control = join(daemon.dir, 'var/run/keyturn/control.sock');
  while (performance.now() < end) {
    const streams = Array.from({ length: 20 }, () =>
      openSdsStream(daemon.sdsSocket, ['default', 'ROOTCA']),
    );
    await Promise.all(streams.map((stream) => stream.response(1)));
    await Promise.all([
      callControl(control, 'POST', '/rotate'),
      daemon.http('/metrics'),
      daemon.http('/healthz/ready'),
    ]);
    each();
    for (const stream of streams) stream.close();
    await Promise.all(streams.map((stream) => stream.ended));
  }
}

test('G6 with the heap that its runtime takes in a container of 64 MiB, it bears load and its own memory stays below that', async () => {
  const daemon = testDaemon({ dir: tempDir(), env: SMALL_HEAP[FORM] });
  await daemon.ready();
  let peak = 0;
  await load(daemon, LOAD_MS, () => {
    peak = Math.max(peak, daemon.rssAnon());
  });
  process.stderr.write(`G6 RssAnon under load: at most ${(peak / 1_048_576).toFixed(1)} MiB\n`);
  expect(peak).toBeLessThan(LIMIT);
  expect((await daemon.stop()).code).toBe(0);
});

const cgroup = memoryCgroup();
if (cgroup) rmdirSync(cgroup.path);

testWhere(
  cgroup !== undefined,
  'a memory cgroup of our own (G6)',
  'root and a writable /sys/fs/cgroup',
)('G6 in a memory cgroup of 64 MiB it starts, bears load and is not killed', async () => {
  const group = memoryCgroup()!;
  try {
    // A shell enters the group and becomes the agent, so that every page is counted from the first.
    const daemon = testDaemon({
      dir: tempDir(),
      through: ['/bin/sh', '-c', `echo $$ > ${group.path}/cgroup.procs && exec "$@"`, 'sh'],
    });
    await daemon.ready();
    await load(daemon, LOAD_MS, () => undefined);
    expect(group.kills()).toBe(0);
    process.stderr.write(
      `G6 charged to the cgroup: at most ${(group.peak() / 1_048_576).toFixed(1)} MiB\n`,
    );
    expect((await daemon.stop()).code).toBe(0);
  } finally {
    rmdirSync(group.path);
  }
});

const UNSHARE = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc'] as const;
const ownPids = spawnSync(UNSHARE[0], [...UNSHARE.slice(1), 'true']).status === 0;

testWhere(
  ownPids,
  'a process namespace of our own (G13)',
  'root and unshare of util-linux',
)(
  'G13 as process 1 it serves, turns the key on SIGHUP and ends on SIGTERM, which the kernel would withhold from it',
  async () => {
    const dir = tempDir();
    const identity = [
      '--trust-domain',
      'cluster.local',
      '--namespace',
      'shop',
      '--service-account',
      'cart',
    ];
    const args = [
      ...programCommand(),
      'run',
      '--ca',
      'builtin',
      ...identity,
      '--admin-address',
      '127.0.0.1:0',
    ];
    const child = spawn(UNSHARE[0], [...UNSHARE.slice(1), ...args], {
      cwd: dir,
      env: { PATH: process.env.PATH },
      stdio: 'ignore',
    });
    const exited = new Promise<number | null>((resolve) => child.on('exit', resolve));
    const status = () =>
      callControl<AgentStatus>(join(dir, 'var/run/keyturn/control.sock'), 'GET', '/status').catch(
        () => undefined,
      );
    const first = await until('a ready agent', async () => (await status())?.ready && status());
    expect(first?.pid).toBe(1);
    // Signals go to the agent itself, which outside has another number: the only child of unshare.
    const agent = Number(
      readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim(),
    );
    process.kill(agent, 'SIGHUP');
    const serial = first?.workloads[0]?.certificate?.serial;
    await until(
      'another certificate',
      async () => (await status())?.workloads[0]?.certificate?.serial !== serial,
    );
    process.kill(agent, 'SIGTERM');
    expect(await exited).toBe(0);
  },
);
