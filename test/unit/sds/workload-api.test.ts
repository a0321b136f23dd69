import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { WatchedSource } from '../../../agent/base/watched';
import type { CrlSet } from '../../../agent/identity/crl';
import { parseSpiffeId } from '../../../agent/identity/spiffe-id';
import { LIMITS, PATIENCE } from '../../../sds/grpc/limits';
import { X509BundlesResponse, X509SVIDResponse } from '../../../sds/proto/generated/workload';
import { TEST_ID } from '../../support/certs';
import { END_STREAM, frame, message, openCall, PREFACE, rawConnect } from '../../support/raw-http2';
import { issueCa, type SdsWorld, startSdsWorld, unavailableState } from '../../support/sds-world';
import { tempDir } from '../../support/temp-dir';
import { TestClock } from '../../support/test-clock';
import { until } from '../../support/until';
import { createWorkloadClient, type WorkloadClient } from '../../support/workload-client';

const INVALID_ARGUMENT = 3;
const PERMISSION_DENIED = 7;
const RESOURCE_EXHAUSTED = 8;
const UNIMPLEMENTED = 12;
const UNAVAILABLE = 14;

const dir = tempDir();
let world: SdsWorld;
let clients: WorkloadClient[] = [];

const start = async (options: Parameters<typeof startSdsWorld>[1] = {}) => {
  world = await startSdsWorld(dir, { id: parseSpiffeId(TEST_ID), ...options });
};
const connect = () => {
  const client = createWorkloadClient(world.socketPath);
  clients.push(client);
  return client;
};
const svids = (client = connect()) =>
  client.stream('FetchX509SVID', (bytes) => X509SVIDResponse.decode(bytes));
const bundles = (client = connect()) =>
  client.stream('FetchX509Bundles', (bytes) => X509BundlesResponse.decode(bytes));

afterEach(async () => {
  for (const client of clients) client.close();
  clients = [];
  await world.close();
});

describe('FetchX509SVID', () => {
  test('gives certificate chain, PKCS#8 key and roots in DER, under the SPIFFE ID', async () => {
    await start({ keyFormat: 'traditional', hint: 'internal' });
    const svid = await world.rotate();
    const { svids: got, crl, federatedBundles } = await svids().next();
    expect(got).toHaveLength(1);
    const [one] = got as [(typeof got)[0]];
    expect(one.spiffeId).toBe(TEST_ID);
    expect(one.hint).toBe('internal');
    expect(one.x509Svid).toEqual(Buffer.concat(svid.chainDer));
    expect(one.bundle).toEqual(Buffer.concat(svid.bundle.rootsDer));
    const key = createPrivateKey({ key: one.x509SvidKey, format: 'der', type: 'pkcs8' });
    expect(new X509Certificate(one.x509Svid).publicKey.equals(createPublicKey(key))).toBe(true);
    expect([crl, federatedBundles.size]).toEqual([[], 0]);
  });

  test('each rotation is pushed to every stream, once', async () => {
    await start();
    await world.rotate();
    const streams = [svids(), svids(), svids()];
    for (const stream of streams) await stream.next();
    const second = await world.rotate();
    for (const stream of streams)
      expect((await stream.next()).svids[0]!.x509Svid).toEqual(Buffer.concat(second.chainDer));
    // The same again is no news.
    world.state.set({ ...world.state.value });
    const third = await world.rotate();
    for (const stream of streams) {
      expect((await stream.next()).svids[0]!.x509Svid).toEqual(Buffer.concat(third.chainDer));
      expect(stream.waiting).toBe(0);
    }
  });

  test('a changed root reaches the streams before a changed certificate does', async () => {
    await start();
    const svid = await world.rotate();
    const stream = svids();
    await stream.next();
    const other = await issueCa('other');
    world.state.set({ kind: 'current', svid, bundle: other.bundle, renewAt: undefined });
    const { svids: got } = await stream.next();
    expect(got[0]!.bundle).toEqual(Buffer.concat(other.bundle.rootsDer));
    expect(got[0]!.x509Svid).toEqual(Buffer.concat(svid.chainDer));
  });

  test('an expired identity is PERMISSION_DENIED, at the first answer and on open streams', async () => {
    await start();
    const svid = await world.rotate();
    const stream = svids();
    await stream.next();
    world.state.set(unavailableState(svid.bundle, svid));
    expect(await stream.ended).toMatchObject({ code: PERMISSION_DENIED });
    expect(await svids().ended).toMatchObject({
      code: PERMISSION_DENIED,
      details: 'no identity is valid now',
    });
  });

  test('one that was not had yet is no denial: streams wait for the first attempt, and come again where that failed', async () => {
    await start({ id: undefined });
    const client = connect();
    const [own, roots] = [svids(client), bundles(client)];
    // Behind them on their connection.
    await expect(
      client.call('FetchJWTSVID', Buffer.alloc(0), (bytes) => bytes),
    ).rejects.toMatchObject({ code: INVALID_ARGUMENT });
    const svid = await world.rotate();
    expect(await own.next()).toMatchObject({ svids: [{ spiffeId: TEST_ID }] });
    await roots.next();
    world.state.set(unavailableState(svid.bundle));
    const later = { code: UNAVAILABLE, details: 'no certificate yet' };
    expect(await Promise.all([own.ended, svids().ended, bundles().ended])).toMatchObject([
      later,
      later,
      later,
    ]);
    world.state.set(unavailableState(undefined));
    expect(await bundles().ended).toMatchObject({
      code: UNAVAILABLE,
      details: 'no trust bundle yet',
    });
  });

  test('an expired certificate is no identity, also before anybody has said so', async () => {
    const svid = await (async () => {
      await start();
      return world.rotate();
    })();
    world.state.set({
      kind: 'current',
      svid: { ...svid, notAfterAt: Date.now() - 1 },
      bundle: svid.bundle,
      renewAt: undefined,
    });
    expect(await svids().ended).toMatchObject({ code: PERMISSION_DENIED });
  });

  test('a mounted certificate without a SPIFFE ID is no identity', async () => {
    await start({ id: undefined });
    const svid = await world.rotate();
    world.state.set({
      kind: 'current',
      svid: { ...svid, id: undefined },
      bundle: svid.bundle,
      renewAt: undefined,
    });
    expect(await svids().ended).toMatchObject({
      code: PERMISSION_DENIED,
      details: 'the mounted certificate has no SPIFFE ID',
    });
    expect(await bundles().ended).toMatchObject({ code: PERMISSION_DENIED });
  });
});

describe('FetchX509Bundles', () => {
  test('gives the roots of our trust domain by its SPIFFE ID, and each change of them', async () => {
    await start();
    const svid = await world.rotate();
    const stream = bundles();
    expect((await stream.next()).bundles).toEqual(
      new Map([['spiffe://cluster.local', Buffer.concat(svid.bundle.rootsDer)]]),
    );
    // A certificate is no change of a bundle.
    await world.rotate();
    const other = await issueCa('other');
    world.state.set({ kind: 'current', svid, bundle: other.bundle, renewAt: undefined });
    expect((await stream.next()).bundles).toEqual(
      new Map([['spiffe://cluster.local', Buffer.concat(other.bundle.rootsDer)]]),
    );
    expect(stream.waiting).toBe(0);
  });

  test('they are given while there is a bundle and no certificate: who only verifies needs none', async () => {
    await start();
    world.state.set(unavailableState(world.ca.bundle));
    expect((await bundles().next()).bundles.size).toBe(1);
  });
});

describe('revocation', () => {
  const lists = new WatchedSource<CrlSet | undefined>(undefined);
  beforeEach(async () => {
    lists.set(undefined);
    await start({ crl: lists });
    await world.rotate();
  });

  test('bundles wait for the first list, since they would let in whom it names', async () => {
    expect(await svids().ended).toMatchObject({ code: UNAVAILABLE });
    expect(await bundles().ended).toMatchObject({ code: UNAVAILABLE });
  });

  test('lists go with both answers, and a new one is pushed', async () => {
    const set = (der: string) =>
      ({
        pem: Buffer.alloc(0),
        version: der,
        lists: [{ der: Buffer.from(der) }],
      }) as unknown as CrlSet;
    lists.set(set('one'));
    const [first, second] = [svids(), bundles()];
    expect((await first.next()).crl.map(String)).toEqual(['one']);
    expect((await second.next()).crl.map(String)).toEqual(['one']);
    lists.set(set('two'));
    expect((await first.next()).crl.map(String)).toEqual(['two']);
    expect((await second.next()).crl.map(String)).toEqual(['two']);
  });
});

describe('hostile clients', () => {
  beforeEach(async () => {
    await start();
    await world.rotate();
  });

  test.each([
    ['without the security header', {}],
    ['with another value', { 'workload.spiffe.io': ['1'] }],
    ['with an empty value', { 'workload.spiffe.io': [''] }],
    ['with the value in capitals', { 'workload.spiffe.io': ['TRUE'] }],
    ['with the header twice', { 'workload.spiffe.io': ['true', 'true'] }],
    ['with a contradiction', { 'workload.spiffe.io': ['true', 'false'] }],
  ])('a call %s is INVALID_ARGUMENT and gets no key', async (_, header) => {
    const stream = connect().stream(
      'FetchX509SVID',
      (bytes) => bytes,
      header as Record<string, string[]>,
    );
    expect(await stream.ended).toEqual({
      code: INVALID_ARGUMENT,
      details: 'the header workload.spiffe.io: true must be there',
    });
    expect(stream.waiting).toBe(0);
  });

  test('what is no method of it is UNIMPLEMENTED, the optional profile of WIT-SVIDs too', async () => {
    for (const method of ['FetchWITSVID', 'FetchWITBundles', 'FetchEverything']) {
      expect(await connect().stream(method, (bytes) => bytes).ended).toMatchObject({
        code: UNIMPLEMENTED,
      });
    }
  });

  test('a client that does not read is sent the newest when it reads again, not all between', async () => {
    const stream = svids();
    await stream.next();
    stream.pause();
    let last = await world.rotate();
    for (let index = 0; index < 300; index += 1) last = await world.rotate();
    stream.resume();
    let got = await stream.next();
    let answers = 1;
    for (; !got.svids[0]!.x509Svid.equals(Buffer.concat(last.chainDer)); answers += 1)
      got = await stream.next();
    expect(answers).toBeLessThan(300);
  });

  test('one that does not read for a minute loses its connection, and nobody else does', async () => {
    await world.close();
    const clock = new TestClock(Date.now());
    world = await startSdsWorld(dir, { id: parseSpiffeId(TEST_ID) }, { clock });
    await world.rotate();
    const reader = svids();
    await reader.next();
    const stuck = await rawConnect(world.socketPath);
    const fields = { ':path': '/SpiffeWorkloadAPI/FetchX509SVID', 'workload.spiffe.io': 'true' };
    // A window of one byte.
    const settings = frame('settings', 0, Buffer.from([0, 4, 0, 0, 0, 1]));
    stuck.send(
      PREFACE,
      settings,
      openCall(1, '', fields),
      message(1, Buffer.alloc(0), { flags: END_STREAM }),
    );
    await until('its stream', async () => world.server.workloadApiStreams() === 2);
    for (let sweep = 0; sweep < PATIENCE.unreadSweeps - 1; sweep += 1)
      await clock.advanceBy(PATIENCE.sweepMs);
    expect(stuck.socket.destroyed).toBe(false);
    for (let sweep = 0; sweep < 4; sweep += 1) await clock.advanceBy(PATIENCE.sweepMs);
    await stuck.closed;
    await until('its end', async () => world.server.workloadApiStreams() === 1);
    const last = await world.rotate();
    expect((await reader.next()).svids[0]!.x509Svid).toEqual(Buffer.concat(last.chainDer));
  });

  test('streams of all services share their places, and a modest client gets one from the greediest', async () => {
    const greedy = [connect(), connect()];
    const streams = greedy.flatMap((client) =>
      Array.from({ length: LIMITS.streams / 2 }, () => svids(client)),
    );
    for (const stream of streams) await stream.next();
    const displaced = Promise.race(streams.map((stream) => stream.ended));
    expect((await world.client().get('default')).keyPem).toBeDefined();
    expect(await displaced).toMatchObject({ code: RESOURCE_EXHAUSTED });
    expect((await svids().next()).svids).toHaveLength(1);
    expect(world.server.workloadApiStreams()).toBeLessThanOrEqual(LIMITS.streams);
  });

  test('a stream that is left gives its place back', async () => {
    const client = connect();
    const open = [svids(client), svids(client), bundles(client)];
    for (const stream of open) await stream.next();
    expect(world.server.workloadApiStreams()).toBe(3);
    for (const stream of open) stream.cancel();
    await until('the last place', async () => world.server.workloadApiStreams() === 0);
  });
});

test('the end of the agent ends its streams with UNAVAILABLE', async () => {
  await start();
  await world.rotate();
  const stream = svids();
  await stream.next();
  await world.server.close();
  expect(await stream.ended).toMatchObject({ code: UNAVAILABLE });
});
