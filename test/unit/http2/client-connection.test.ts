import { createServer as createHttp2, type ServerHttp2Stream, type Settings } from 'node:http2';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import { ClientConnection } from '../../../agent/http2/client-connection';
import {
  END_HEADERS,
  END_STREAM,
  frame,
  headerBlock,
  message,
  reset,
} from '../../support/raw-http2';
import { until } from '../../support/until';

const FIELDS = [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', '/a.Service/Method'],
  [':authority', 'ca'],
] as const;

const open: { close(): unknown }[] = [];
afterEach(() => {
  for (const each of open.splice(0)) each.close();
});

async function listen(server: Pick<Server, 'listen' | 'address' | 'close'>): Promise<number> {
  open.push(server);
  await new Promise<void>((done) => void server.listen(0, '127.0.0.1', done));
  return (server.address() as AddressInfo).port;
}

async function connectTo(port: number): Promise<ClientConnection> {
  const socket = connect(port, '127.0.0.1');
  open.push({ close: () => socket.destroy() });
  await new Promise((done) => socket.once('connect', done));
  return new ClientConnection(socket, () => performance.now());
}

/** What a listener was told, as words, and the octets of the body. */
function request(client: ClientConnection, body: Uint8Array = Buffer.from('ask')) {
  const told: string[] = [];
  const chunks: Buffer[] = [];
  const stream = client.request(FIELDS, body, {
    headers: ({ status, fields }, last) =>
      told.push(
        `headers ${status} ${fields.map(([name]) => name).join(' ')}${last ? ' last' : ''}`,
      ),
    data: (chunk) => chunks.push(Buffer.from(chunk)),
    trailers: (fields) => told.push(`trailers ${fields.map((each) => each.join('=')).join(' ')}`),
    end: () => told.push('end'),
    closed: (code, lost) => told.push(`closed ${code}${lost ? ` ${lost.message}` : ''}`),
  });
  const over = () => until('its end', async () => told.some((each) => each.startsWith('closed')));
  return { told, stream, over, body: () => Buffer.concat(chunks) };
}

/** A server of nghttp2 that gives back what it was sent, twice. */
async function echo(settings: Settings = {}): Promise<number> {
  const server = createHttp2({ settings });
  server.on('stream', (stream: ServerHttp2Stream) => {
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream
      .on('error', () => undefined)
      .on('end', () => {
        stream.additionalHeaders({ ':status': 103 });
        stream.respond({ ':status': 200, 'x-first': 'a' }, { waitForTrailers: true });
        stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
        stream.end(Buffer.concat([...chunks, ...chunks]));
      });
  });
  return listen(server);
}

describe('a server that keeps to the rules', () => {
  test.each<[string, Settings]>([
    ['as it comes', {}],
    ['with windows of a byte', { initialWindowSize: 1 }],
    ['that allows one stream at a time', { maxConcurrentStreams: 1 }],
    ['that allows no header table', { headerTableSize: 0 }],
  ])('%s answers three requests at once', async (_, settings) => {
    const client = await connectTo(await echo(settings));
    await client.settled;
    const size = settings.initialWindowSize === undefined ? 200_000 : 300;
    const body = Buffer.alloc(size, 'x');
    const all = [request(client, body), request(client, body), request(client, body)];
    for (const each of all) await each.over();
    for (const { told, body: got } of all) {
      expect(told[0]).toMatch(/^headers 200 x-first/);
      expect(told.slice(1)).toEqual(['trailers grpc-status=0', 'end', 'closed 0']);
      expect(got().length).toBe(2 * size);
    }
  });

  test('that says goodbye ends with what is under way, and nothing new is sent to it', async () => {
    const server = createHttp2();
    server.on('stream', (stream: ServerHttp2Stream) => {
      stream.session!.goaway(0, stream.id);
      setImmediate(() => stream.respond({ ':status': 204 }, { endStream: true }));
    });
    const client = await connectTo(await listen(server));
    const first = request(client);
    await client.leaving;
    const second = request(client);
    await first.over();
    await second.over();
    expect(first.told.slice(1)).toEqual(['end', 'closed 0']);
    expect(second.told[0]).toMatch(/^closed 7/);
  });

  test('is told to forget a request that is given up', async () => {
    const codes: number[] = [];
    const server = createHttp2();
    server.on('stream', (stream: ServerHttp2Stream) =>
      stream.on('error', () => undefined).on('close', () => codes.push(stream.rstCode)),
    );
    const client = await connectTo(await listen(server));
    await client.settled;
    const { stream, told } = request(client);
    stream.reset('CANCEL');
    stream.reset('CANCEL');
    expect(told).toEqual(['closed 8']);
    await until('its reset', async () => codes.length > 0);
    expect(codes).toEqual([8]);
  });
});

/** A server by hand: it says `words` once the client has sent a request, and keeps what comes. */
async function says(...words: readonly Uint8Array[]): Promise<{
  readonly client: ClientConnection;
  readonly came: () => Buffer;
  readonly isOver: () => boolean;
}> {
  const came: Buffer[] = [];
  let over = false;
  const server = createServer((socket: Socket) => {
    open.push({ close: () => socket.destroy() });
    socket.write(frame('settings', 0));
    socket
      .on('error', () => undefined)
      .on('close', () => {
        over = true;
      });
    socket.on('data', (chunk) => {
      came.push(chunk);
      if (came.length === 1) socket.write(Buffer.concat(words));
    });
  });
  const client = await connectTo(await listen(server));
  return { client, came: () => Buffer.concat(came), isOver: () => over };
}

const OK = headerBlock({ ':status': '200' });
const answer = (stream: number, flags = END_HEADERS) => frame('headers', stream, OK, flags);

describe('a server that breaks the rules', () => {
  test.each<[string, readonly Uint8Array[], number]>([
    ['pushes', [frame(5, 1, Buffer.alloc(8), END_HEADERS)], 1],
    ['answers what was not asked', [answer(3, END_HEADERS | END_STREAM)], 1],
    ['answers on a stream of its own', [answer(2, END_HEADERS | END_STREAM)], 1],
    ['interrupts a header block', [answer(1, 0), frame('ping', 0, Buffer.alloc(8))], 1],
    ['continues what has not begun', [frame(9, 1, OK, END_HEADERS)], 1],
    ['sends a frame that is too long', [frame('data', 1, Buffer.alloc(20_000))], 6],
    [
      'sends a header block that cannot be unpacked',
      [frame('headers', 1, Buffer.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff), END_HEADERS)],
      9,
    ],
    [
      'sends a header block without end',
      [answer(1, 0), ...Array.from({ length: 5 }, () => frame(9, 1, Buffer.alloc(16_000)))],
      11,
    ],
    [
      'sends more than its window',
      [answer(1), ...Array.from({ length: 5 }, () => frame('data', 3, Buffer.alloc(16_000)))],
      1,
    ],
    [
      'pings without end',
      [Buffer.concat(Array.from({ length: 2_500 }, () => frame('ping', 0, Buffer.alloc(8))))],
      11,
    ],
    [
      'opens its window beyond all measure',
      [frame(8, 0, Buffer.from([0x7f, 0xff, 0xff, 0xff]))],
      3,
    ],
    ['says half of a goodbye', [frame(7, 0, Buffer.alloc(4))], 6],
  ])('and %s loses its connection', async (_, words, code) => {
    const { client, came, isOver } = await says(...words);
    const { told, over } = request(client);
    await over();
    expect(told.at(-1)).toMatch(/^closed 8 /);
    await until('its end', async () => isOver());
    expect(came().at(-1)).toBe(code);
  });

  test.each<[string, readonly Uint8Array[], string]>([
    [
      'gives no status',
      [frame('headers', 1, headerBlock({ 'x-a': 'b' }), END_HEADERS)],
      'closed 1',
    ],
    [
      'gives two',
      [
        frame(
          'headers',
          1,
          headerBlock([
            [':status', '200'],
            [':status', '200'],
          ]),
          END_HEADERS,
        ),
      ],
      'closed 1',
    ],
    [
      'gives a status of words',
      [frame('headers', 1, headerBlock({ ':status': 'good' }), END_HEADERS)],
      'closed 1',
    ],
    [
      'ends with an interim answer',
      [frame('headers', 1, headerBlock({ ':status': '100' }), END_HEADERS | END_STREAM)],
      'closed 1',
    ],
    ['begins with a body', [message(1, Buffer.alloc(1))], 'closed 1'],
    [
      'sends trailers that end nothing',
      [answer(1), frame('headers', 1, headerBlock({ a: 'b' }), END_HEADERS)],
      'closed 1',
    ],
    [
      'sends names in capitals',
      [frame('headers', 1, headerBlock({ ':status': '200', 'X-A': 'b' }), END_HEADERS)],
      'closed 1',
    ],
    ['resets it', [answer(1), reset(1, 11)], 'closed 11'],
    ['ends with its headers', [answer(1, END_HEADERS | END_STREAM)], 'closed 0'],
  ])('for one request, and %s, loses that alone', async (_, words, end) => {
    const { client } = await says(...words);
    const { told, over } = request(client);
    await over();
    expect(told.at(-1)).toBe(end);
    const next = request(client);
    next.stream.reset('CANCEL');
    expect(next.told).toEqual(['closed 8']);
  });

  test('by a goodbye of which a request is no part has not looked at it', async () => {
    const { client } = await says(frame(7, 0, Buffer.from([0, 0, 0, 1, 0, 0, 0, 0])));
    const [first, second] = [request(client), request(client)];
    await second.over();
    expect([first.told, second.told]).toEqual([[], ['closed 7']]);
    first.stream.reset('CANCEL');
    expect(first.told).toEqual(['closed 8']);
  });

  test('by saying something else than HTTP/2 is not settled', async () => {
    const server = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    const client = await connectTo(await listen(server));
    await expect(client.settled).rejects.toThrow();
  });

  test('by hanging up leaves every request with a reason', async () => {
    const server = createServer((socket) => {
      socket.write(frame('settings', 0));
      socket.once('data', () => socket.destroy());
    });
    const client = await connectTo(await listen(server));
    const all = [request(client), request(client)];
    for (const { over } of all) await over();
    expect(all.map(({ told }) => told[0])).toEqual([
      expect.stringMatching(/^closed 8 ./),
      expect.stringMatching(/^closed 8 ./),
    ]);
  });
});
