import { mkdtempSync, rmSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type Daemon, startDaemon } from '../support/daemon';
import { parseExposition } from '../support/exposition';
import {
  END_HEADERS,
  END_STREAM,
  frame,
  headerBlock,
  message,
  openCall,
  PREFACE,
  type RawClient,
  rawClient,
  rawConnect,
} from '../support/raw-http2';
import { SDS_SERVICE, sotwRequest } from '../support/sds-client';
import { expectWell } from '../support/sds-daemon';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';

const STREAM_CLOSED = 5;
const PROTOCOL_ERROR = 1;

let dir: string;
let daemon: Daemon;
const clients: RawClient[] = [];

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'keyturn-http2-'));
  daemon = startDaemon({ dir });
  await daemon.ready();
});
afterAll(async () => {
  for (const each of clients) each.destroy();
  await expectWell(daemon);
  await daemon.stop();
  rmSync(dir, { recursive: true, force: true });
});

async function sent(...parts: readonly Uint8Array[]): Promise<RawClient> {
  const client = await rawConnect(daemon.sdsSocket);
  clients.push(client);
  client.send(PREFACE, ...parts);
  return client;
}

const uint32 = (value: number) => Buffer.from([value >>> 24, value >>> 16, value >>> 8, value]);
const whole = (stream: number) =>
  Buffer.concat([
    openCall(stream, 'FetchSecrets'),
    message(stream, sotwRequest(['default']), { flags: END_STREAM }),
  ]);
const isAnswered = (client: RawClient, stream: number) =>
  until('an answer', async () => client.dataBytes(stream) > 0, 10_000, 5);
const isEnded = (client: RawClient, stream: number) =>
  until('its end', async () => client.ended(stream), 10_000, 5);

test.each([4_096, 1_000, 0])(
  'a client of nghttp2 that allows %d bytes of header table is answered',
  async (headerTableSize) => {
    const session = connectHttp2('http://localhost', {
      createConnection: () => connect(daemon.sdsSocket),
      settings: { headerTableSize },
    });
    for (const _time of ['first', 'again']) {
      const stream = session.request({
        ':method': 'POST',
        ':path': `${SDS_SERVICE}/Nothing`,
        'content-type': 'application/grpc',
      });
      stream.end();
      const status = await new Promise((done, failed) => {
        stream.on('response', (headers) => done(headers['grpc-status'])).on('error', failed);
        session.on('error', failed).on('close', () => failed(new Error('hung up')));
      });
      expect(status).toBe('12');
    }
    session.destroy();
  },
);

test.each<[string, number, Buffer]>([
  ['DATA after the end', STREAM_CLOSED, frame('data', 3, Buffer.of(0))],
  ['HEADERS after the end', STREAM_CLOSED, openCall(3)],
  ['a stream below the last', PROTOCOL_ERROR, openCall(1)],
])('%s closes the connection', async (_what, code, then) => {
  const client = await sent(whole(3));
  await isAnswered(client, 3);
  client.send(then);
  await client.closed;
  expect(client.goaway()).toBe(code);
});

test.each<[string, Buffer]>([
  ['a body longer than its content-length', message(1, Buffer.alloc(10))],
  ['a body shorter than its content-length', frame('data', 1, Buffer.alloc(1), END_STREAM)],
  [
    'a pseudo-header in trailers',
    frame('headers', 1, headerBlock({ ':method': 'POST' }), END_HEADERS | END_STREAM),
  ],
])('%s ends its stream', async (_what, then) => {
  const client = await sent(
    openCall(1, 'StreamSecrets', { 'content-length': '5' }),
    then,
    whole(3),
  );
  await isAnswered(client, 3);
  expect(client.resetWith(1)).toBe(PROTOCOL_ERROR);
});

test('what was on its way when a call was refused is no fault', async () => {
  const client = await sent(openCall(1, 'Nothing'));
  await isEnded(client, 1);
  const trailers = frame('headers', 1, headerBlock({ x: 'y' }), END_HEADERS | END_STREAM);
  client.send(message(1, Buffer.alloc(10)), frame('data', 1, Buffer.of(0)), trailers, whole(3));
  await isAnswered(client, 3);
  expect(client.goaway()).toBeUndefined();
});

test('an answer of many frames comes whole, without another word of a client that takes any number', async () => {
  const all = 2 ** 31 - 1;
  const settings = frame('settings', 0, Buffer.concat([Buffer.of(0, 4), uint32(all)]));
  const names = sotwRequest(['file-root:system']);
  const client = await sent(
    settings,
    frame('window', 0, uint32(all - 65_535)),
    openCall(1, 'FetchSecrets'),
    message(1, names, { flags: END_STREAM }),
  );
  await isEnded(client, 1);
  expect(client.dataBytes(1)).toBeGreaterThan(2 * 65_536);
});

test('a whole request that is answered at once is not reset', async () => {
  const client = await sent(openCall(1, 'Nothing', {}, END_HEADERS | END_STREAM), whole(3));
  await isAnswered(client, 3);
  expect([client.ended(1), client.resetWith(1)]).toEqual([true, undefined]);
});

test('a connection that said goodbye ends with its last stream, though that is reset', async () => {
  const client = await sent(openCall(1), frame('goaway', 0, Buffer.alloc(8)));
  await until('the goodbye', async () => client.goaway() !== undefined, 10_000, 5);
  client.send(frame('window', 1, Buffer.alloc(4)));
  await client.closed;
  // It was not swept.
  const { samples } = parseExposition((await daemon.http('/metrics')).body).get(
    'keyturn_sds_refused_total',
  )!;
  expect(samples.find(({ labels }) => labels.reason === 'silent')?.value ?? 0).toBe(0);
});

test('ca serve tells a client why it hangs up', async () => {
  const args = [
    'ca',
    'serve',
    '--trust-domain',
    'example.org',
    '--listen',
    '127.0.0.1:0',
    '--admin-address',
    '127.0.0.1:0',
  ];
  const ca = testDaemon({ dir: tempDir(), args: [...args, '--log-format', 'json'] });
  const port = Number(
    String((await ca.event('ca server started')).address)
      .split(':')
      .at(-1),
  );
  const tls = connectTls({
    host: '127.0.0.1',
    port,
    servername: 'localhost',
    ALPNProtocols: ['h2'],
    rejectUnauthorized: false,
  });
  const client = await rawClient(tls, 'secureConnect');
  client.send(PREFACE, frame('window', 0, Buffer.from([0x7f, 0xff, 0xff, 0xff])));
  await client.closed;
  expect(client.goaway()).toBe(3);
  await ca.stop();
});
