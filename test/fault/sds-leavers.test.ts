import { describe, expect, test } from '@jest/globals';
import { pause, useHostileWorld } from '../support/hostile-world';
import {
  END_STREAM,
  frame,
  message,
  openCall,
  PREFACE,
  type RawClient,
  reset,
} from '../support/raw-http2';
import { createSdsClient, sotwRequest } from '../support/sds-client';
import { leafSerial, openStreams, rotate } from '../support/sds-daemon';
import { until } from '../support/until';

const FULL = process.env.KEYTURN_TEST === 'full';
const world = useHostileWorld();
const subscribe = sotwRequest(['default'], { node: 'hostile' });

describe('clients that do not read, or leave', () => {
  test('D11 one that never reads is kept the newest only, through a hundred rotations', async () => {
    const client = await world.connect({ paused: true });
    client.send(PREFACE, openCall(1), message(1, subscribe));
    await until('the stream', async () => (await openStreams(world.daemon)) === 1);
    for (let times = 0; times < (FULL ? 100 : 15); times += 1) await rotate(world.daemon);
    const silent = createSdsClient(world.daemon.sdsSocket);
    const mute = silent.openStream();
    mute.request(['default']);
    await mute.next();
    await until('both streams', async () => (await openStreams(world.daemon)) === 2);
    for (let times = 0; times < 5; times += 1) await rotate(world.daemon);
    await mute.silence();
    // It acknowledges the first of them at last, and is given the newest at once.
    const newest = await rotate(world.daemon);
    mute.ack();
    expect(leafSerial((await mute.next()).secrets[0]!.chainPem)).toBe(newest);
    await mute.silence();
    silent.close();
    await world.memoryBack();
  }, 900_000);

  test('D11 one that asks for everything again and again without reading is answered once it reads', async () => {
    const client = await world.connect();
    client.socket.pause();
    // A window of one byte: not even the first response leaves the server.
    const window = (bytes: number) =>
      frame('settings', 0, Buffer.from([0, 4, 0, 0, bytes >> 8, bytes & 0xff]));
    client.send(PREFACE, window(1), openCall(1));
    for (let round = 0; round < 50; round += 1) {
      client.send(...[...Array(200)].map(() => message(1, subscribe)));
      await pause(5);
    }
    client.socket.resume();
    await until('its one byte', async () => client.dataBytes(1) === 1);
    client.send(window(0xffff));
    await until('the answer', async () => client.dataBytes(1) > 1_000);
    await world.memoryBack();
  });

  test.each<[string, (client: RawClient) => void]>([
    ['a reset stream', (client) => client.send(reset(1))],
    ['a half-closed connection', (client) => client.socket.end()],
    [
      'a half-closed stream',
      (client) => client.send(frame('data', 1, Buffer.alloc(0), END_STREAM)),
    ],
    ['a destroyed connection', (client) => client.destroy()],
    ['a GOAWAY', (client) => client.send(frame('goaway', 0, Buffer.alloc(8)))],
  ])('D12 %s in the middle of a push leaves no stream behind', async (_what, leave) => {
    for (let times = 0; times < 10; times += 1) {
      const client = await world.connect();
      client.send(PREFACE, openCall(1), message(1, subscribe));
      process.kill(world.daemon.pid, 'SIGHUP');
      await pause(times);
      leave(client);
      await pause(2);
      client.destroy();
    }
    await until('no stream', async () => (await openStreams(world.daemon)) === 0);
  });
});
