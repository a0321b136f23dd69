import { describe, expect, test } from '@jest/globals';
import { LIMITS } from '../../sds/grpc/limits';
import { pause, useHostileWorld } from '../support/hostile-world';
import { underLoad } from '../support/load';
import { frame, headerBlock, message, openCall, PREFACE, reset } from '../support/raw-http2';
import { createSdsClient, sotwRequest } from '../support/sds-client';
import { expectWell, leafSerial, openStreams, rotate } from '../support/sds-daemon';
import { until } from '../support/until';

const FULL = process.env.KEYTURN_TEST === 'full';
const world = useHostileWorld();
const subscribe = sotwRequest(['default'], { node: 'hostile' });

describe('floods', () => {
  test('D6 messages without pause from one client do not keep another waiting', async () => {
    const storm = await world.connect();
    const bytes = Buffer.concat(
      [...Array(500)].map(() => message(1, sotwRequest(['default'], { nonce: 'x', error: 'no' }))),
    );
    storm.send(PREFACE, openCall(1), message(1, subscribe));
    let stop = false;
    const pouring = (async () => {
      while (!stop) {
        storm.send(bytes);
        await pause(10);
      }
    })();
    for (let times = 0; times < 10; times += 1) {
      const begun = performance.now();
      await expectWell(world.daemon);
      expect(performance.now() - begun).toBeLessThan(underLoad(2_000));
    }
    stop = true;
    await pouring;
  });

  test.each<[string, (index: number) => Buffer]>([
    ['PING', () => frame('ping', 0, Buffer.alloc(8))],
    ['SETTINGS', () => frame('settings', 0)],
    ['empty DATA', () => frame('data', 1)],
    ['PRIORITY', (index) => frame('priority', index * 2 + 1, Buffer.alloc(5))],
    [
      'CONTINUATION',
      (index) =>
        index === 0
          ? frame('headers', 3, headerBlock({ a: 'b' }))
          : frame('continuation', 3, headerBlock({ a: 'b' })),
    ],
    [
      'calls that are reset at once',
      (index) => Buffer.concat([openCall(index * 2 + 3), reset(index * 2 + 3)]),
    ],
    [
      'calls that nobody serves, reset at once',
      (index) => Buffer.concat([openCall(index * 2 + 3, 'Nothing'), reset(index * 2 + 3)]),
    ],
  ])('a flood of %s over four connections at once ends at them', async (_what, make) => {
    const clients = await Promise.all([...Array(4)].map(() => world.connect({ paused: true })));
    for (const client of clients) client.send(PREFACE, openCall(1));
    for (let round = 0; round < 20; round += 1) {
      const frames = [...Array(500)].map((_, index) => make(round * 500 + index));
      for (const client of clients) client.send(...frames);
      await pause(5);
    }
    await expectWell(world.daemon);
    await world.memoryBack();
  });

  test('D13 streams that open and close by the thousand leave no descriptor, no stream and no memory', async () => {
    const before = world.descriptors();
    const end = performance.now() + (FULL ? 60_000 : 3_000);
    let opened = 0;
    while (performance.now() < end) {
      const client = await world.connect();
      client.send(
        PREFACE,
        ...[...Array(128)].map((_, index) =>
          Buffer.concat([openCall(index * 2 + 1), message(index * 2 + 1, subscribe)]),
        ),
      );
      await until(
        'answers',
        async () => client.received() > 50_000 || client.socket.destroyed,
        20_000,
        2,
      );
      client.send(...[...Array(64)].map((_, index) => reset(index * 4 + 1)));
      client.destroy();
      opened += 128;
    }
    expect(opened).toBeGreaterThan(500);
    await until('no stream', async () => (await openStreams(world.daemon)) === 0);
    await until('descriptors', async () => world.descriptors() <= before + 2);
    await world.memoryBack();
  });

  test('D14 ten thousand streams are capped, and one more client is served beside them', async () => {
    for (let connection = 0; connection < 80; connection += 1) {
      const client = await world.connect();
      client.send(PREFACE, ...[...Array(128)].map((_, index) => openCall(index * 2 + 1)));
      client.send(...[...Array(128)].map((_, index) => message(index * 2 + 1, subscribe)));
    }
    await until('the cap', async () => (await openStreams(world.daemon)) >= LIMITS.streams * 0.9);
    const good = createSdsClient(world.daemon.sdsSocket);
    const stream = good.openStream();
    stream.request(['default']);
    await stream.next();
    stream.ack();
    expect(await openStreams(world.daemon)).toBeLessThanOrEqual(LIMITS.streams);
    const serial = await rotate(world.daemon);
    expect(leafSerial((await stream.next()).secrets[0]!.chainPem)).toBe(serial);
    good.close();
    await world.memoryBack();
  });

  test('more connections than there may be push out the idle ones, not the newcomer', async () => {
    for (let count = 0; count < LIMITS.connections + 100; count += 1) await world.connect();
    await expectWell(world.daemon);
    expect(world.descriptors()).toBeLessThan(LIMITS.connections + 100);
    await world.memoryBack();
  });

  test('a client that says nothing is hung up on', async () => {
    const silent = await world.connect();
    const slow = await world.connect();
    slow.send(PREFACE.subarray(0, 10));
    await Promise.all([silent.closed, slow.closed]);
  });
});
