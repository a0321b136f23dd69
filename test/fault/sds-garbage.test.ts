import { request } from 'node:http';
import { connect as connectTls } from 'node:tls';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { pause, useHostileWorld } from '../support/hostile-world';
import {
  END_HEADERS,
  END_STREAM,
  frame,
  message,
  openCall,
  PREFACE,
  reset,
} from '../support/raw-http2';
import { deltaRequest, sotwRequest } from '../support/sds-client';
import { expectWell, openStreams } from '../support/sds-daemon';
import { until } from '../support/until';

const FULL = process.env.KEYTURN_TEST === 'full';
const world = useHostileWorld();
const subscribe = sotwRequest(['default'], { node: 'hostile' });

describe('D17 what is not gRPC over HTTP/2', () => {
  test.each<[string, Buffer]>([
    ['garbage', Buffer.alloc(4096, 0xa5)],
    ['zeros', Buffer.alloc(4096)],
    ['an HTTP/1.1 request', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')],
    [
      'half of the preface and garbage',
      Buffer.concat([PREFACE.subarray(0, 12), Buffer.alloc(100, 0x41)]),
    ],
    [
      'frames of 16 MB by their length',
      Buffer.concat([PREFACE, frame('headers', 1, Buffer.alloc(10), END_HEADERS, 0xffffff)]),
    ],
    ['DATA on stream 0', Buffer.concat([PREFACE, frame('data', 0, Buffer.from('x'))])],
    [
      'DATA on a stream that nobody opened',
      Buffer.concat([PREFACE, frame('data', 7, Buffer.from('x'))]),
    ],
    ['an even stream', Buffer.concat([PREFACE, openCall(2)])],
    [
      'a bad HPACK index',
      Buffer.concat([
        PREFACE,
        frame('headers', 1, Buffer.from([0xff, 0xff, 0xff, 0xff]), END_HEADERS),
      ]),
    ],
    ['a PUSH_PROMISE', Buffer.concat([PREFACE, frame('push', 1, Buffer.alloc(8), END_HEADERS)])],
    ['a WINDOW_UPDATE of zero', Buffer.concat([PREFACE, frame('window', 0, Buffer.alloc(4))])],
    ['SETTINGS of a wrong length', Buffer.concat([PREFACE, frame('settings', 0, Buffer.alloc(5))])],
  ])('%s ends its connection', async (_what, bytes) => {
    const client = await world.connect();
    client.send(bytes);
    await client.closed;
  });

  test.each<[string, Buffer]>([
    ['a call of another service', openCall(1, 'x', { ':path': '/nobody.serves/This' })],
    ['a call that is no gRPC', openCall(1, 'StreamSecrets', { 'content-type': 'text/html' })],
    [
      'a call with a deadline that is none',
      openCall(1, 'StreamSecrets', { 'grpc-timeout': 'soon' }),
    ],
    [
      'a call in an encoding that nobody knows',
      Buffer.concat([
        openCall(1, 'StreamSecrets', { 'grpc-encoding': 'x' }),
        message(1, subscribe, { compressed: true }),
      ]),
    ],
    ['a fetch without a message', openCall(1, 'FetchSecrets', {}, END_HEADERS | END_STREAM)],
    [
      'a fetch of two messages',
      Buffer.concat([
        openCall(1, 'FetchSecrets'),
        message(1, subscribe),
        message(1, subscribe, { flags: END_STREAM }),
      ]),
    ],
  ])('%s is ended with an answer', async (_what, bytes) => {
    const client = await world.connect();
    client.send(PREFACE, bytes);
    await until('the end of the call', async () => client.ended(1));
  });

  test('frames of types that nobody knows are skipped', async () => {
    const client = await world.connect();
    const unknown = [...Array(50)].map((_, index) => frame(100 + index, 0, Buffer.alloc(100)));
    client.send(PREFACE, ...unknown, openCall(1), message(1, subscribe));
    await until('the stream', async () => (await openStreams(world.daemon)) === 1);
    expect(client.ended(1)).toBe(false);
  });

  test('a TLS client fails', async () => {
    const socket = connectTls({ path: world.daemon.sdsSocket, rejectUnauthorized: false });
    await new Promise((done) => socket.on('error', done));
  });

  test('an HTTP/1.1 client fails', async () => {
    const answered = new Promise((done, failed) => {
      const asked = request({ socketPath: world.daemon.sdsSocket, path: '/' }, ({ statusCode }) =>
        done(statusCode),
      );
      asked.on('error', failed);
      asked.end();
    });
    await expect(answered).rejects.toThrow();
  });
});

describe('D17 messages that are none', () => {
  test.each<[string, Buffer]>([
    ['garbage', message(1, Buffer.alloc(1_000, 0xff))],
    [
      'groups without end',
      Buffer.concat([...Array(3)].map(() => message(1, Buffer.alloc(16_000, 0x7b)))),
    ],
    ['a length of 4 GB', message(1, subscribe, { length: 0xffffffff })],
    ['a bomb in gzip', message(1, gzipSync(Buffer.alloc(10_000_000)), { compressed: true })],
    ['a broken gzip', message(1, Buffer.alloc(100, 1), { compressed: true })],
  ])('%s end their stream alone', async (_what, bytes) => {
    const client = await world.connect();
    client.send(PREFACE, openCall(1, 'StreamSecrets', { 'grpc-encoding': 'gzip' }), bytes);
    client.send(openCall(3), message(3, subscribe));
    await until('the end of the stream', async () => client.ended(1));
    await until('the other stream', async () => (await openStreams(world.daemon)) === 1);
    expect(client.ended(3)).toBe(false);
  });

  test('a first message with an error and nothing else harms nobody', async () => {
    const nack = sotwRequest([], { error: 'x' });
    for (const bytes of [
      nack,
      sotwRequest([], { error: '', nonce: 'never-sent' }),
      sotwRequest(['default'], { error: 'x'.repeat(200_000) }),
    ]) {
      for (const method of ['StreamSecrets', 'DeltaSecrets', 'FetchSecrets']) {
        const client = await world.connect();
        client.send(
          PREFACE,
          openCall(1, method),
          message(1, bytes),
          message(1, deltaRequest({ error: 'y', nonce: 'z' })),
        );
        await pause(20);
        await expectWell(world.daemon);
      }
    }
  });

  test('any bytes as frames and messages, thousands of times, harm nobody', async () => {
    const chunk = fc.oneof(
      fc.uint8Array({ maxLength: 64 }).map((bytes) => message(1, bytes)),
      fc
        .tuple(fc.nat(10), fc.nat(5), fc.uint8Array({ maxLength: 64 }), fc.nat(255))
        .map(([type, stream, bytes, flags]) => frame(type, stream, bytes, flags)),
      fc.nat(4).map((stream) => openCall(stream * 2 + 1)),
      fc.nat(4).map((stream) => reset(stream * 2 + 1)),
      fc.constant(message(1, subscribe)),
      fc.constant(message(1, deltaRequest({ subscribe: ['default'] }))),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(chunk, { maxLength: 20 }), fc.boolean(), async (chunks, hangUp) => {
        const client = await world.connect();
        client.send(PREFACE, openCall(1), ...chunks);
        if (hangUp) client.destroy();
        await pause(0);
        world.keep(20);
      }),
      { numRuns: FULL ? 20_000 : 1_500 },
    );
  });
});
