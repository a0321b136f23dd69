import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseDuration } from '../../agent/base/duration';
import { type BootstrapOptions, createBootstrap } from '../../agent/envoy/bootstrap';
import { type Daemon, startDaemon } from '../../test/support/daemon';
import { type Envoy, startEnvoy } from '../../test/support/envoy';
import { startTraffic, type Traffic } from '../../test/support/traffic';
import { type DemoSide, renderTable, summarise } from './demo-table';

const DIR = 'var/demo';
/** Envoy wants absolute socket paths, and `sun_path` holds 107 bytes. */
const MAX_DIR_BYTES = 80;
const TTL = '20s';
const REQUESTS_PER_SECOND = 50;
const FREE_PORT = { host: '127.0.0.1', port: 0 };
const ID = (name: string) => `spiffe://cluster.local/ns/demo/sa/${name}`;

const closers: (() => Promise<unknown>)[] = [];
const sockets = socketDir();
const say = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

void main();

async function main(): Promise<void> {
  const stop = new Promise<void>((done) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => done());
    if (process.argv[2] !== undefined) setTimeout(done, parseDuration(process.argv[2], '--for'));
  });
  try {
    const demo = await Promise.race([start(), stop]);
    if (demo) process.exitCode = await watch(demo, stop);
  } catch (caught) {
    say(caught instanceof Error ? caught.message : String(caught));
    process.exitCode = 1;
  } finally {
    for (const close of closers.reverse()) await close();
  }
}

interface Demo {
  readonly sides: readonly Side[];
  readonly traffic: Traffic;
  readonly startedAt: number;
}

interface Side {
  readonly name: string;
  readonly agent: Daemon;
  readonly envoy: Envoy;
}

/** Agents, Envoys, an application and somebody who asks it, in the order in which they need one another. */
async function start(): Promise<Demo> {
  mkdirSync(DIR, { recursive: true });
  say('starting two agents that share one CA, each with an identity of its own ...');
  const agents = { client: startAgent('client'), server: startAgent('server') };
  await Promise.all([agents.client.ready(), agents.server.ready()]);
  say('starting an application and two Envoys ...');
  const upstream = { host: '127.0.0.1', port: await startApplication() };
  const server = await envoyBeside('server', {
    inbound: { listen: FREE_PORT, upstream, callers: [ID('client')] },
  });
  const peer = { host: '127.0.0.1', port: await server.port('inbound') };
  const client = await envoyBeside('client', {
    outbound: { listen: FREE_PORT, peer, peerId: ID('server'), requestsPerConnection: 1 },
  });
  await Promise.all([server.started(), client.started()]);
  const traffic = startTraffic({
    port: await client.port('outbound'),
    perSecond: REQUESTS_PER_SECOND,
    concurrency: 4,
  });
  closers.push(() => traffic.stop());
  return {
    sides: [
      { name: 'client', agent: agents.client, envoy: client },
      { name: 'server', agent: agents.server, envoy: server },
    ],
    traffic,
    startedAt: Date.now(),
  };
}

function startAgent(name: string): Daemon {
  const agent = startDaemon({
    dir: process.cwd(),
    detached: true,
    identity: ['--spiffe-id', ID(name)],
    flags: [
      '--ca-dir',
      `./${DIR}/ca`,
      '--sds-socket',
      socketOf(name),
      '--control-socket',
      join(sockets, `${name}.control`),
      '--ttl',
      TTL,
    ],
  });
  closers.push(() => agent.stop());
  return agent;
}

async function envoyBeside(
  name: string,
  side: Pick<BootstrapOptions, 'inbound' | 'outbound'>,
): Promise<Envoy> {
  const config = createBootstrap({
    sdsSocket: resolve(socketOf(name)),
    trustDomain: 'cluster.local',
    admin: FREE_PORT,
    nodeId: `${name}-envoy`,
    sessionResumption: false,
    ...side,
  });
  const envoy = await startEnvoy({ dir: DIR, name: `envoy-${name}`, config, detached: true });
  closers.push(() => envoy.stop());
  return envoy;
}

function socketOf(name: string): string {
  return join(sockets, `${name}.sds`);
}

/** Below ./var like everything else, unless the clone lies too deep for a socket's path. */
function socketDir(): string {
  if (Buffer.byteLength(resolve(DIR)) <= MAX_DIR_BYTES) return DIR;
  const dir = mkdtempSync(join(tmpdir(), 'keyturn-demo-'));
  closers.push(async () => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** What the server-side Envoy protects: it says what it was asked. */
async function startApplication(): Promise<number> {
  const app = createServer((request, response) =>
    response.end(`${request.method} ${request.url}\n`),
  );
  await new Promise<void>((done) => app.listen(0, '127.0.0.1', done));
  closers.push(async () => app.closeAllConnections());
  closers.push(async () => app.close());
  return (app.address() as AddressInfo).port;
}

/** Shows the table until `stop`; returns the exit code. */
async function watch(demo: Demo, stop: Promise<void>): Promise<number> {
  const live = process.stdout.isTTY === true;
  let stopped = false;
  void stop.then(() => {
    stopped = true;
  });
  for (let second = 0; !stopped; second += 1) {
    const sides = await Promise.all(demo.sides.map(look));
    const shown = { sides, traffic: demo.traffic.report(), startedAt: demo.startedAt, ttl: TTL };
    if (live)
      process.stdout.write(
        `${second === 0 ? '' : `\x1b[${renderTable(shown).length}A`}${renderTable(shown)
          .map((line) => `\x1b[2K${line}\n`)
          .join('')}`,
      );
    else if (second % 5 === 0) say(summarise(shown));
    await Promise.race([stop, new Promise((done) => setTimeout(done, 1_000))]);
  }
  const traffic = await demo.traffic.stop();
  const sides = await Promise.all(demo.sides.map(look));
  say(summarise({ sides, traffic, startedAt: demo.startedAt, ttl: TTL }));
  for (const [kind, times] of traffic.failures) say(`  ${times} x ${kind}`);
  const overdue =
    Date.now() - demo.startedAt > parseDuration(TTL, 'ttl') &&
    sides.some((side) => side.rotations === 0);
  const failed =
    traffic.failures.size > 0 ||
    traffic.succeeded === 0 ||
    overdue ||
    sides.some((side) => side.rejected > 0);
  say(failed ? 'something failed' : 'no request failed');
  return failed ? 1 : 0;
}

async function look(side: Side): Promise<DemoSide> {
  const [status, certs, rejected] = await Promise.all([
    side.agent.status(),
    side.envoy.certs(),
    side.envoy.sum(/^sds\..*\.update_rejected$/),
  ]);
  const workload = status.workloads[0]!;
  const held = certs.flatMap((context) => context.chain)[0];
  return {
    name: side.name,
    rotations: Math.max(0, workload.renewals - 1),
    served: workload.certificate?.serial ?? 'none',
    held: held?.serial ?? 'none',
    expiresAt: held?.notAfterAt,
    rejected,
  };
}
