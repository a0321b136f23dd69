import { mkdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { describe, expect, test } from '@jest/globals';
import { CREATE_CERTIFICATE_PATH } from '../../ca-client/istio/wire/service';
import type { Daemon } from '../support/daemon';
import { parseExposition } from '../support/exposition';
import { fetchText } from '../support/fetch-text';
import { pause } from '../support/hostile-world';
import { ATTACKS, type Attack, opening } from '../support/http2-attacks';
import { openCall, type RawClient, rawClient } from '../support/raw-http2';
import { getSecret, SDS_SERVICE } from '../support/sds-client';
import { expectWell } from '../support/sds-daemon';
import { seeded } from '../support/seeded';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';

const FULL = process.env.KEYTURN_TEST === 'full';
const AT_A_TIME = FULL ? 8 : 4;
/** Clients of each attack on each server, and octets that one pours at the most. */
const USUAL = { connections: FULL ? 40 : 4, pourBytes: 96 * 1024 };
/** As field flood/abort does it; the long one ends a process that uses the HTTP/2 of Node.js. */
const LONG = FULL
  ? { connections: 400, pourBytes: 3 * 1024 * 1024 }
  : { connections: 30, pourBytes: 1024 * 1024 };

/** Which methods are attacked, and how a client reaches them. */
interface Target {
  readonly daemon: Daemon;
  readonly paths: readonly string[];
  connect(): Promise<RawClient>;
}

/** Many clients at a time, each of another kind of haste: reading or not, hanging up between frames or within one, at once or later. */
async function attack(
  { daemon, paths, connect: open }: Target,
  [, pour]: Attack,
  { connections, pourBytes } = USUAL,
): Promise<void> {
  let begun = 0;
  const one = async () => {
    while (begun < connections) {
      const turn = begun;
      begun += 1;
      const random = seeded(turn + 1);
      const path = paths[turn % paths.length]!;
      const call = (stream: number, flags?: number) =>
        openCall(stream, '', { ':path': path, 'workload.spiffe.io': 'true' }, flags);
      const client = await open();
      client.send(opening(call));
      // Half of them hang up within a frame.
      const enough = pourBytes * (turn % 2 === 0 ? 1 : random());
      let poured = 0;
      for (let round = 0; poured < enough && !client.socket.destroyed; round += 1) {
        const bytes = Buffer.concat(
          [...Array(100)].map((_, each) => pour(round * 100 + each, call)),
        );
        client.send(bytes.subarray(0, enough - poured));
        poured += bytes.length;
        if (random() < 0.2) await pause(random() * 5);
      }
      if (random() < 0.3) client.socket.end();
      if (random() < 0.5) await pause(random() * 10);
      client.destroy();
    }
  };
  await Promise.all([...Array(AT_A_TIME)].map(one));
  daemon.assertAlive();
}

async function reach(daemon: Daemon, open: () => Promise<RawClient>): Promise<RawClient> {
  for (;;) {
    try {
      return await open();
    } catch (caught) {
      daemon.assertAlive();
      // The backlog of the socket is full, or the client was hung up on in its handshake.
      if (
        !['EAGAIN', 'ECONNRESET', 'EPIPE'].includes(String((caught as NodeJS.ErrnoException).code))
      )
        throw caught;
      await pause(5);
    }
  }
}

const SDS_PATHS = [
  `${SDS_SERVICE}/StreamSecrets`,
  `${SDS_SERVICE}/DeltaSecrets`,
  `${SDS_SERVICE}/FetchSecrets`,
  '/SpiffeWorkloadAPI/FetchX509SVID',
  '/SpiffeWorkloadAPI/ValidateJWTSVID',
  '/nobody.serves/This',
];

/** Connections that were closed for what was poured over them. */
function refused(metrics: string, name: string): number {
  const samples = parseExposition(metrics).get(name)?.samples ?? [];
  return samples.find(({ labels }) => labels.reason === 'http2-connection')?.value ?? 0;
}

/** Every other client reads nothing. */
function createReaders(): () => { readonly paused: boolean } {
  let paused = false;
  return () => {
    paused = !paused;
    return { paused };
  };
}

const readers = createReaders();
const unixTarget = (daemon: Daemon, socket = daemon.sdsSocket): Target => ({
  daemon,
  paths: SDS_PATHS,
  connect: () => reach(daemon, () => rawClient(connect(socket), 'connect', readers())),
});

describe('field flood/abort: no client ends the process', () => {
  test('of the SDS socket, whatever it pours and however it hangs up', async () => {
    const daemon = testDaemon({ dir: tempDir() });
    await daemon.ready();
    await attack(unixTarget(daemon), ATTACKS[0]!, LONG);
    for (const each of ATTACKS) await attack(unixTarget(daemon), each);
    await expectWell(daemon);
    await until(
      'no stream',
      async () => (await daemon.status()).workloads[0]!.sds.streams.length === 0,
    );
    expect(
      refused((await daemon.http('/metrics')).body, 'keyturn_sds_refused_total'),
    ).toBeGreaterThan(0);
    expect(await daemon.stop()).toMatchObject({ code: 0, signal: null });
  }, 900_000);

  test('of one workload of many, whose sockets are all served on', async () => {
    const dir = tempDir();
    mkdirSync(join(dir, 'wl'));
    for (const name of ['good', 'bad']) {
      writeFileSync(join(dir, `wl/${name}.yaml`), `namespace: shop\nservice-account: ${name}\n`, {
        mode: 0o600,
      });
    }
    const daemon = testDaemon({
      dir,
      identity: ['--trust-domain', 'cluster.local'],
      flags: ['--workloads', 'wl'],
    });
    const socket = (name: string) =>
      join(dir, `var/run/secrets/workload-spiffe-uds/${name}/socket`);
    await daemon.event('sds listening', (event) => String(event.socket).includes('/bad/'));
    await daemon.ready();
    for (const each of ATTACKS.slice(0, FULL ? undefined : 4))
      await attack(unixTarget(daemon, socket('bad')), each);
    for (const name of ['good', 'bad'])
      expect((await getSecret(socket(name))).chainPem).toContain('CERTIFICATE');
    expect(await daemon.stop()).toMatchObject({ code: 0, signal: null });
  }, 900_000);

  test('of ca serve, before it has said who it is', async () => {
    const daemon = testDaemon({
      dir: tempDir(),
      args: [
        'ca',
        'serve',
        '--trust-domain',
        'example.org',
        '--listen',
        '127.0.0.1:0',
        '--admin-address',
        '127.0.0.1:0',
        '--log-format',
        'json',
      ],
    });
    const started = await daemon.event('ca server started');
    const port = Number(String(started.address).split(':').at(-1));
    const tls = () =>
      connectTls({
        host: '127.0.0.1',
        port,
        servername: 'localhost',
        ALPNProtocols: ['h2'],
        rejectUnauthorized: false,
      });
    const target = {
      daemon,
      paths: [CREATE_CERTIFICATE_PATH, '/nobody.serves/This'],
      connect: () => reach(daemon, () => rawClient(tls(), 'secureConnect', readers())),
    };
    for (const each of ATTACKS) await attack(target, each);
    const { body } = await fetchText(`http://${String(started.admin)}/metrics`);
    expect(refused(body, 'keyturn_ca_refused_total')).toBeGreaterThan(0);
    expect(await daemon.stop()).toMatchObject({ code: 0, signal: null });
  }, 900_000);
});
