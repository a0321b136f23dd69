import { X509Certificate } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import type { RotateResult } from '../../agent/admin/agent-view';
import { underLoad } from '../support/load';
import { createSdsClient, getSecret } from '../support/sds-client';
import { leafSerial } from '../support/sds-daemon';
import { until } from '../support/until';
import { identity, idOf, startWorkloads } from '../support/workload-list';

const names = Array.from({ length: 100 }, (_, index) => `w${String(index).padStart(3, '0')}`);
const hundred = () => Object.fromEntries(names.map((name) => [name, [identity(name)]]));

test('a hundred workloads in one process have an identity, a key and a socket each, and take less than 60 MB with a proxy at each', async () => {
  const world = startWorkloads(hundred());
  await world.daemon.ready();
  const clients = names.map((name) => createSdsClient(world.socket(name)));
  const secrets = await Promise.all(
    clients.map(async (client) => {
      const streams = ['default', 'ROOTCA'].map((name) => {
        const stream = client.openStream();
        stream.request([name]);
        return stream;
      });
      const [leaf] = await Promise.all(streams.map((stream) => stream.next()));
      for (const stream of streams) stream.ack();
      return leaf!.secrets[0]!;
    }),
  );
  expect(secrets.map(({ chainPem }) => new X509Certificate(chainPem!).subjectAltName)).toEqual(
    names.map((name) => `URI:${idOf(name)}`),
  );
  expect(new Set(secrets.map(({ keyPem }) => keyPem)).size).toBe(100);

  // Five seconds after its start it gives back what the start needed.
  await until('memory at rest', async () => world.daemon.rssAnon() < 60e6);
  const metrics = (await world.daemon.http('/metrics')).body;
  expect(metrics).toContain(
    `keyturn_certificate_state{workload="w042",id="${idOf('w042')}",state="current"} 1`,
  );
  expect(metrics).toContain('keyturn_workloads 100');

  const answer = JSON.parse(
    (await world.daemon.command('rotate', '--output', 'json')).stdout,
  ) as RotateResult;
  expect(answer.workloads.map(({ name }) => name)).toEqual(names);
  const one = JSON.parse(
    (await world.daemon.command('rotate', '--workload', 'w007', '--output', 'json')).stdout,
  ) as RotateResult;
  expect(one.workloads.map(({ name }) => name)).toEqual(['w007']);
  const got = await world.daemon.command('secret', 'get', 'default', '--pem', '--workload', 'w007');
  expect(leafSerial(got.stdout)).toBe(one.workloads[0]!.serial);
  const table = (await world.daemon.command('status')).stdout;
  expect(table.split('\n').filter((line) => /^w\d{3} +spiffe:.* current /.test(line))).toHaveLength(
    100,
  );
  // A hundred renewals at once leave nothing behind.
  await until('memory at rest again', async () => world.daemon.rssAnon() < 60e6);
  for (const client of clients) client.close();
});

test('what befalls one is not felt by the others: a wrong CA, files that cannot be written, a storm, a broken file', async () => {
  const world = startWorkloads({
    good: [identity('good')],
    alone: [
      identity('alone'),
      'ca: istiod',
      'ca-address: 127.0.0.1:1',
      'ca-root: no-root.pem',
      'token: no-token',
    ],
    full: [identity('full'), 'output-certs: in-the-way/certs'],
    stormy: [identity('stormy')],
    broken: ['spiffe-id: ['],
    orphan: [identity('orphan'), 'ca-dir: broken-ca'],
  });
  writeFileSync(join(world.dir, 'in-the-way'), '');
  mkdirSync(join(world.dir, 'broken-ca'));
  writeFileSync(join(world.dir, 'broken-ca/ca-cert.pem'), 'no certificate');
  const current = await world.becomes('good', 'in service', ({ state }) => state === 'current');
  const reasons = await until('the complaints', async () => {
    const told = (await world.daemon.status()).reasons;
    return told.length === 2 && told;
  });
  expect(reasons.map((reason) => /^workload (\w+)/.exec(reason)?.[1]).sort()).toEqual([
    'alone',
    'orphan',
  ]);
  expect(
    (await world.daemon.status()).refused!.map(({ name, file, outcome }) => [
      name ?? file,
      outcome,
    ]),
  ).toEqual([
    ['workloads/broken.yaml', 'refused'],
    ['orphan', 'failed'],
  ]);
  await world.becomes(
    'full',
    'told',
    ({ output, state }) => state === 'current' && output?.error !== undefined,
  );

  const storm = new Storm(world.socket('stormy'), 1_500);
  try {
    const begun = Date.now();
    const answer = await world.daemon.command('rotate', '--workload', 'good', '--output', 'json');
    const { serial } = (JSON.parse(answer.stdout) as RotateResult).workloads[0]!;
    expect(leafSerial((await getSecret(world.socket('good'))).chainPem)).toBe(serial);
    expect(serial).not.toBe(current.certificate!.serial);
    expect(Date.now() - begun).toBeLessThan(underLoad(5_000));
  } finally {
    storm.end();
  }
});

test('where descriptors are few, storms at three sockets leave the fourth its clients, and room for a fifth', async () => {
  const stormy = ['a', 'b', 'c'];
  const world = startWorkloads(
    Object.fromEntries([...stormy, 'calm'].map((name) => [name, [identity(name)]])),
    {
      through: ['sh', '-c', 'ulimit -n 192; exec "$@"', 'sh'],
    },
  );
  await world.daemon.ready();
  const storms = stormy.map((name) => new Storm(world.socket(name), 200));
  try {
    await Promise.all(storms.map(({ begun }) => begun));
    expect((await getSecret(world.socket('calm'))).chainPem).toContain('BEGIN CERTIFICATE');
    world.put('late', identity('late'));
    await world.becomes('late', 'in service', ({ state }) => state === 'current');
    expect((await getSecret(world.socket('late'))).chainPem).toContain('BEGIN CERTIFICATE');
  } finally {
    for (const storm of storms) storm.end();
  }
});

/** Connections that begin HTTP/2 and then say nothing more. */
class Storm {
  readonly #sockets: Socket[];
  /** Resolves when each was taken or refused. */
  readonly begun: Promise<unknown>;

  constructor(path: string, size: number) {
    this.#sockets = Array.from({ length: size }, () => connect(path));
    this.begun = Promise.all(
      this.#sockets.map((socket) => {
        socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0');
        return new Promise<void>((done) => {
          for (const event of ['data', 'error', 'close']) socket.on(event, () => done());
        });
      }),
    );
  }

  end(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
