import { once } from 'node:events';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls, type SecureVersion } from 'node:tls';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { LIMITS, PATIENCE } from '../../agent/authority/server/limits';
import { writePem } from '../../agent/base/pem';
import { certificatesPem } from '../../agent/identity/certificate';
import { encodeCertificateRequest } from '../../ca-client/istio/wire/messages';
import { CREATE_CERTIFICATE_PATH } from '../../ca-client/istio/wire/service';
import { but } from '../support/but';
import {
  type CaTestClient,
  type CaWorld,
  issueIdentity,
  makeRequest,
  startCaWorld,
} from '../support/ca-server';
import { underLoad } from '../support/load';
import {
  END_HEADERS,
  frame,
  headerBlock,
  message,
  openCall,
  PREFACE,
  type RawClient,
  rawClient,
  reset,
} from '../support/raw-http2';
import { TestClock } from '../support/test-clock';
import { until } from '../support/until';

const UNAUTHENTICATED = 16;
const RESOURCE_EXHAUSTED = 8;
const UNIMPLEMENTED = 12;
const INVALID_ARGUMENT = 3;
const DEADLINE_EXCEEDED = 4;
/** Of HTTP/2 (RFC 9113 section 7). */
const PROTOCOL_ERROR = 1;

let world: CaWorld;
let honest: CaTestClient;
let csrDer: Uint8Array;
let request: Buffer;
const open: { destroy(): void }[] = [];

beforeAll(async () => {
  world = await startCaWorld();
  honest = world.client(await issueIdentity(world.authority));
  csrDer = (await makeRequest()).csrDer;
  request = encodeCertificateRequest({
    csrPem: writePem('CERTIFICATE REQUEST', csrDer).toString(),
    ttlSeconds: 60,
    metadata: new Map(),
  });
});
/** Whatever a stranger did, the next one is served, at once. */
afterEach(async () => {
  const startedAt = performance.now();
  const outcome = await honest.create(csrDer);
  for (const each of open.splice(0)) each.destroy();
  expect(outcome).toMatchObject({ code: 0 });
  expect(performance.now() - startedAt).toBeLessThan(underLoad(2_000));
});
afterAll(() => world.close());

const place = (of = world) => ({
  host: '127.0.0.1',
  port: Number(of.server.address.split(':')[1]),
});
const roots = (of = world) => certificatesPem(of.authority.trust.value.rootsDer);

async function raw(of = world): Promise<RawClient> {
  const socket = connectTls({
    ...place(of),
    servername: 'localhost',
    ALPNProtocols: ['h2'],
    ca: roots(of),
  });
  const client = await rawClient(socket, 'secureConnect');
  open.push(client);
  return client;
}

function session(of = world): ClientHttp2Session {
  const { host, port } = place(of);
  const made = connectHttp2(`https://${host}:${port}`, { servername: 'localhost', ca: roots(of) });
  made.on('error', () => undefined);
  open.push(made);
  return made;
}

const HEADERS = {
  ':method': 'POST',
  ':path': CREATE_CERTIFICATE_PATH,
  'content-type': 'application/grpc',
  te: 'trailers',
};
const call = (stream: number, fields: Readonly<Record<string, string>> = {}) =>
  openCall(stream, '', {
    ':scheme': 'https',
    ':path': CREATE_CERTIFICATE_PATH,
    ':authority': 'localhost',
    ...fields,
  });

/** Sends one request and gives its HTTP and gRPC status, or the code with which its stream was reset. */
async function ask(
  headers: Record<string, string | string[]>,
  body: Uint8Array | undefined,
  of = world,
): Promise<{ http?: number; grpc?: number; reset?: number }> {
  const stream = session(of).request({ ...HEADERS, ...headers });
  const found: { http?: number; grpc?: number; reset?: number } = {};
  const take = (fields: Readonly<Record<string, unknown>>) => {
    if (fields[':status'] !== undefined) found.http = Number(fields[':status']);
    if (fields['grpc-status'] !== undefined) found.grpc = Number(fields['grpc-status']);
  };
  stream.on('response', take);
  stream.on('trailers', take);
  stream.on('error', () => undefined);
  stream.resume();
  stream.end(body);
  await once(stream, 'close');
  if (stream.rstCode !== 0) found.reset = stream.rstCode;
  return found;
}

function framed(bytes: Uint8Array, { length = bytes.length, compressed = 0 } = {}): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(compressed, 0);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, bytes]);
}

test('the harness of these cases reaches the service', async () => {
  expect(await ask({}, framed(request))).toEqual({ http: 200, grpc: UNAUTHENTICATED });
  expect(
    await ask({ authorization: `Bearer ${await world.joinToken()}` }, framed(request)),
  ).toEqual({ http: 200, grpc: 0 });
});

test('A25 two authorization headers are UNAUTHENTICATED, and the token in the first stays good', async () => {
  const token = await world.joinToken();
  const client = await raw();
  const twice = Buffer.concat([
    headerBlock({
      ':method': 'POST',
      ':scheme': 'https',
      ':path': CREATE_CERTIFICATE_PATH,
      ':authority': 'localhost',
    }),
    headerBlock({
      'content-type': 'application/grpc',
      te: 'trailers',
      authorization: `Bearer ${token}`,
    }),
    headerBlock({ authorization: 'Bearer other' }),
  ]);
  client.send(PREFACE, frame('headers', 1, twice, END_HEADERS), message(1, request, { flags: 1 }));
  await until('the answer', async () => client.ended(1));
  expect(world.audit().at(-1)).toMatchObject({
    decision: 'refused',
    status: 'UNAUTHENTICATED',
    reason: 'authorization: must be given once',
  });
  expect(await ask({ authorization: `Bearer ${token}` }, framed(request))).toEqual({
    http: 200,
    grpc: 0,
  });
});

describe('a call whose deadline is past', () => {
  test('is not signed and told so, and a token that came with it stays good', async () => {
    const token = `Bearer ${await world.joinToken()}`;
    const issued = world.issued();
    expect(await ask({ authorization: token, 'grpc-timeout': '1n' }, framed(request))).toEqual({
      http: 200,
      grpc: DEADLINE_EXCEEDED,
    });
    expect(world.issued()).toBe(issued);
    expect(world.audit().at(-1)).toMatchObject({
      decision: 'refused',
      status: 'DEADLINE_EXCEEDED',
    });
    expect(
      await ask({ authorization: token, 'grpc-timeout': '99999999H' }, framed(request)),
    ).toEqual({ http: 200, grpc: 0 });
  });

  test('is not signed either where finding out who calls took until then', async () => {
    const slow = await startCaWorld({
      wrapStore: (store) =>
        but(store, {
          redeemJoinToken: async (...args: Parameters<typeof store.redeemJoinToken>) => {
            await new Promise((done) => setTimeout(done, 60));
            return store.redeemJoinToken(...args);
          },
        }),
    });
    const headers = { authorization: `Bearer ${await slow.joinToken()}`, 'grpc-timeout': '30m' };
    expect(await ask(headers, framed(request), slow)).toEqual({
      http: 200,
      grpc: DEADLINE_EXCEEDED,
    });
    expect(slow.issued()).toBe(0);
    await slow.close();
  });

  test.each(['', '5', 'S', '5s', '-5S', '1.5S', '123456789S', '5S, 5S'])(
    'is none where it says %j: INVALID_ARGUMENT',
    async (value) => {
      expect(await ask({ 'grpc-timeout': value }, framed(request))).toEqual({
        http: 200,
        grpc: INVALID_ARGUMENT,
      });
    },
  );
});

describe('A40 a flood of headers ends a stream or its connection, and nothing else', () => {
  /** An answer, which would be a decision, is no such end. */
  const cutOff = (client: RawClient) =>
    until(
      'the end',
      async () =>
        client.resetWith(1) !== undefined || (client.socket.destroyed && !client.ended(1)),
    );

  test('ten thousand headers', async () => {
    const decisions = world.audit().length;
    const client = await raw();
    const block = Buffer.concat([
      headerBlock({
        ':method': 'POST',
        ':scheme': 'https',
        ':path': CREATE_CERTIFICATE_PATH,
        ':authority': 'x',
      }),
      ...Array.from({ length: 10_000 }, (_, each) => headerBlock({ [`x-${each}`]: 'y' })),
    ]);
    client.send(PREFACE, frame('headers', 1, block.subarray(0, 10_000), 0));
    for (let at = 10_000; at < block.length; at += 16_000) {
      client.send(
        frame(
          'continuation',
          1,
          block.subarray(at, at + 16_000),
          at + 16_000 >= block.length ? END_HEADERS : 0,
        ),
      );
    }
    await cutOff(client);
    expect(world.audit()).toHaveLength(decisions);
  });
  test('a header of 40 kB', async () => {
    expect(await ask({ 'x-large': 'x'.repeat(40_000) }, framed(request))).toEqual({
      http: 200,
      grpc: RESOURCE_EXHAUSTED,
    });
  });
  test('a header of 70 kB', async () =>
    expect(
      await ask({ 'x-large': 'x'.repeat(60_000), 'x-more': 'x'.repeat(5_000) }, framed(request)),
    ).not.toHaveProperty('grpc', 0));
  test('a header of 1 MiB', async () => {
    const client = await raw();
    const large = headerBlock({ 'x-large': 'x'.repeat(1_048_576) });
    client.send(PREFACE, frame('headers', 1, headerBlock({ ':method': 'POST', ':path': '/' }), 0));
    for (let at = 0; at < large.length; at += 16_000)
      client.send(frame('continuation', 1, large.subarray(at, at + 16_000), 0));
    await cutOff(client);
  });
  test.each<[string, Buffer, string]>([
    [
      'bad UTF-8',
      Buffer.concat([Buffer.from([0]), Buffer.of(1, 0x78), Buffer.of(2, 0xc3, 0x28)]),
      'UNAUTHENTICATED',
    ],
    [
      'a NUL',
      Buffer.concat([Buffer.from([0]), Buffer.of(1, 0x78), Buffer.of(2, 0x61, 0x00)]),
      'PROTOCOL_ERROR',
    ],
    [
      'a name in capitals',
      Buffer.concat([Buffer.from([0]), Buffer.of(1, 0x58), Buffer.of(1, 0x61)]),
      'PROTOCOL_ERROR',
    ],
  ])(
    '%s in a header is answered as if it were not there, or resets the stream (RFC 9113 section 8.2.1)',
    async (_, field, end) => {
      const decisions = world.audit().length;
      const client = await raw();
      const block = Buffer.concat([
        headerBlock({
          ':method': 'POST',
          ':scheme': 'https',
          ':path': CREATE_CERTIFICATE_PATH,
          ':authority': 'x',
          'content-type': 'application/grpc',
        }),
        field,
      ]);
      client.send(
        PREFACE,
        frame('headers', 1, block, END_HEADERS),
        message(1, request, { flags: 1 }),
      );
      await until('the end of the stream', async () => client.ended(1) || client.socket.destroyed);
      const decided = world.audit().slice(decisions);
      if (end === 'PROTOCOL_ERROR')
        expect([decided, client.resetWith(1)]).toEqual([[], PROTOCOL_ERROR]);
      else
        expect([decided.map(({ status }) => status), client.resetWith(1)]).toEqual([
          [end],
          undefined,
        ]);
    },
  );
});

describe('A41 a message that is not as long as it says, or packed, is refused', () => {
  test('a bomb of gzip, with its flag, is UNIMPLEMENTED', async () => {
    const bomb = gzipSync(Buffer.alloc(50 * 1024 * 1024));
    expect(bomb.length).toBeLessThan(LIMITS.requestBytes);
    const before = process.memoryUsage.rss();
    expect(await ask({ 'grpc-encoding': 'gzip' }, framed(bomb, { compressed: 1 }))).toEqual({
      http: 200,
      grpc: UNIMPLEMENTED,
    });
    expect(process.memoryUsage.rss() - before).toBeLessThan(50 * 1024 * 1024);
  });
  test('an encoding that nobody knows, with its flag, is UNIMPLEMENTED', async () => {
    expect(await ask({ 'grpc-encoding': 'snappy' }, framed(request, { compressed: 1 }))).toEqual({
      http: 200,
      grpc: UNIMPLEMENTED,
    });
  });
  test('a length of 4 GiB is RESOURCE_EXHAUSTED', async () => {
    expect(await ask({}, framed(request, { length: 0xffff_ffff }))).toEqual({
      http: 200,
      grpc: RESOURCE_EXHAUSTED,
    });
  });
  test.each([
    ['longer than it is', framed(Buffer.from('abc'), { length: 10 })],
    ['shorter than it is', framed(Buffer.from('abcdef'), { length: 3 })],
    ['half a prefix', Buffer.of(0, 0)],
    ['two messages', Buffer.concat([framed(Buffer.from('abc')), framed(Buffer.from('abc'))])],
    ['nothing', Buffer.alloc(0)],
  ])('a body that says that it is %s is INVALID_ARGUMENT', async (_, body) => {
    expect(await ask({}, body)).toEqual({ http: 200, grpc: INVALID_ARGUMENT });
  });
});

describe('A42 floods of HTTP/2 end their own connection', () => {
  const flood = async (parts: (at: number) => Uint8Array[], rounds: number) => {
    const client = await raw();
    client.send(PREFACE);
    for (let at = 0; at < rounds && !client.socket.destroyed; at += 1) {
      client.send(...parts(at));
      if (at % 50 === 0) await new Promise((done) => setImmediate(done));
    }
    return client;
  };
  test('streams that are reset as soon as they are opened', async () => {
    const client = await flood((at) => [call(2 * at + 1), reset(2 * at + 1)], 10_000);
    await until(
      'the end of the connection',
      async () => client.socket.destroyed || client.socket.readableEnded,
    );
  });
  test('a stream that is reset without an error is over, and its half request is no request', async () => {
    const client = await raw();
    client.send(PREFACE, call(1));
    await new Promise((done) => setTimeout(done, 50));
    client.send(reset(1, 0));
    await new Promise((done) => setTimeout(done, 50));
    client.send(call(3), message(3, request, { flags: 1 }));
    await until('the answer to the next call', async () => client.ended(3));
  });
  test('PING and SETTINGS', async () => {
    const before = process.memoryUsage.rss();
    await flood(() => [frame('ping', 0, Buffer.alloc(8)), frame('settings', 0)], 5_000);
    expect(process.memoryUsage.rss() - before).toBeLessThan(80 * 1024 * 1024);
  });
  test('CONTINUATION without end', async () => {
    const client = await raw();
    client.send(PREFACE, frame('headers', 1, headerBlock({ ':method': 'POST' }), 0));
    for (let at = 0; at < 5_000 && !client.socket.destroyed; at += 1) {
      client.send(frame('continuation', 1, headerBlock({ [`x${at}`]: 'y'.repeat(1_000) }), 0));
      if (at % 50 === 0) await new Promise((done) => setImmediate(done));
    }
    await until(
      'the end of the connection',
      async () => client.socket.destroyed || client.ended(1),
    );
  });
  test('a window of zero holds nobody else up', async () => {
    const client = await raw();
    const zero = Buffer.from([0, 4, 0, 0, 0, 0]);
    const token = await world.joinToken();
    client.send(
      PREFACE,
      frame('settings', 0, zero),
      call(1, { authorization: `Bearer ${token}` }),
      message(1, request, { flags: 1 }),
    );
    await until('the decision', async () => world.audit().at(-1)?.method === 'join-token');
  });
});

describe('A43 who is slow or silent is let go', () => {
  /** A server on a clock of its own, of which sweeps take no time. */
  async function startOnTestClock() {
    const clock = new TestClock(Date.now());
    const own = await startCaWorld({ deps: { clock } });
    open.push({ destroy: () => void own.close() });
    return { own, clock };
  }
  const sweeps = async (clock: TestClock, count: number) => {
    for (let each = 0; each < count; each += 1) {
      await clock.advanceBy(PATIENCE.sweepMs);
      await new Promise((done) => setImmediate(done));
    }
  };
  const gone = (socket: Socket) =>
    until('the end of the connection', async () => socket.destroyed, underLoad(5_000));

  test('a connection that sends nothing, or a part of its TLS handshake', async () => {
    const { own, clock } = await startOnTestClock();
    const silent = connectTcp(place(own));
    const partial = connectTcp(place(own));
    for (const socket of [silent, partial]) socket.on('error', () => undefined);
    partial.write(Buffer.from('16030100', 'hex'));
    await new Promise((done) => setTimeout(done, 100));
    expect([silent.destroyed, partial.destroyed]).toEqual([false, false]);
    await sweeps(clock, PATIENCE.silentSweeps + 2);
    await gone(silent);
    await gone(partial);
  });
  test('a handshake that takes too long, before the sweep comes by', async () => {
    const { own, clock } = await startOnTestClock();
    const silent = connectTcp(place(own));
    silent.on('error', () => undefined);
    silent.write(Buffer.from('16030100', 'hex'));
    await until('its place', async () => silent.bytesWritten > 0);
    await new Promise((done) => setTimeout(done, 100));
    await sweeps(clock, PATIENCE.handshakeMs / PATIENCE.sweepMs + 1);
    await gone(silent);
  });
  test('half a header block', async () => {
    const { own, clock } = await startOnTestClock();
    const client = await raw(own);
    client.send(PREFACE, frame('headers', 1, headerBlock({ ':method': 'POST' }), 0));
    await until('the settings', async () => client.received() > 0);
    await sweeps(clock, PATIENCE.silentSweeps + 2);
    await gone(client.socket);
  });
  test('a body that comes by the byte, or not at all', async () => {
    const { own, clock } = await startOnTestClock();
    const client = await raw(own);
    client.send(PREFACE, call(1), call(3), frame('data', 3, Buffer.of(0)));
    await until('the settings', async () => client.received() > 0);
    await new Promise((done) => setTimeout(done, 100));
    await sweeps(clock, PATIENCE.incompleteSweeps + 2);
    await until(
      'the end of both',
      async () => client.ended(1) && client.ended(3),
      underLoad(5_000),
    );
  });
  test('a refused stream that is left half open is reset', async () => {
    const { own, clock } = await startOnTestClock();
    const { host, port } = place(own);
    const http2 = connectHttp2(`https://${host}:${port}`, {
      servername: 'localhost',
      ca: roots(own),
    });
    http2.on('error', () => undefined);
    const stream = http2.request({ ...HEADERS });
    stream.on('error', () => undefined);
    stream.resume();
    stream.write(framed(request, { length: 0xffff_ffff }));
    const [headers] = await once(stream, 'response');
    expect(Number(headers['grpc-status'])).toBe(RESOURCE_EXHAUSTED);
    await sweeps(clock, PATIENCE.incompleteSweeps + 2);
    await until('the reset', async () => stream.closed, underLoad(5_000));
    http2.destroy();
  });
  test('a connection that has asked long ago', async () => {
    const { own, clock } = await startOnTestClock();
    const client = await raw(own);
    client.send(PREFACE, call(1), message(1, request, { flags: 1 }));
    await until('the answer', async () => client.ended(1));
    await sweeps(clock, PATIENCE.silentSweeps + 10);
    expect(client.socket.destroyed).toBe(false);
    await sweeps(clock, PATIENCE.idleSweeps + PATIENCE.goodbyeSweeps);
    await gone(client.socket);
  });
  test('idle connections beyond the cap make room, and do not lock anybody out', async () => {
    const idle = Array.from({ length: LIMITS.connections + 50 }, () => connectTcp(place()));
    for (const socket of idle) {
      socket.on('error', () => undefined);
      // One that reads nothing does not see its end.
      socket.resume();
      open.push(socket);
    }
    await until(
      'all of them',
      async () => idle.every((socket) => !socket.connecting),
      underLoad(20_000),
    );
    const fresh = world.client(await issueIdentity(world.authority));
    expect(await fresh.create(csrDer)).toMatchObject({ code: 0 });
    await until(
      'the oldest to go',
      async () => idle.filter((socket) => !socket.destroyed).length <= LIMITS.connections,
    );
  });
});

describe('A44 more calls than there is room for', () => {
  test('a client is told how many, and 2,000 calls on one connection are all answered', async () => {
    const outcomes = await Promise.all(Array.from({ length: 2_000 }, () => honest.create('x')));
    expect(new Set(outcomes.map(({ code }) => code))).toEqual(new Set([INVALID_ARGUMENT]));
  });
  test('a client that does not care has its streams refused', async () => {
    const client = await raw();
    client.send(
      PREFACE,
      ...Array.from({ length: LIMITS.callsPerConnection + 10 }, (_, at) => call(2 * at + 1)),
    );
    const last = 2 * (LIMITS.callsPerConnection + 9) + 1;
    await until('the refusal', async () => client.ended(last) || client.socket.destroyed);
  });
  test('calls without an end on many connections make room for one that has few', async () => {
    const clients = await Promise.all(
      Array.from({ length: LIMITS.incompleteCalls / LIMITS.callsPerConnection }, () => raw()),
    );
    for (const client of clients)
      client.send(
        PREFACE,
        ...Array.from({ length: LIMITS.callsPerConnection }, (_, at) => call(2 * at + 1)),
      );
    await until('the settings', async () => clients.every((client) => client.received() > 0));
    await new Promise((done) => setTimeout(done, 300));
    for (let each = 0; each < 10; each += 1)
      expect(await honest.create(csrDer)).toMatchObject({ code: 0 });
  });
});

describe('A45 what is not gRPC over TLS 1.2 or 1.3 is refused', () => {
  const plain = async (text: string | Uint8Array) => {
    const socket = connectTcp(place());
    open.push(socket);
    let received = '';
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1');
    });
    socket.on('error', () => undefined);
    socket.write(text);
    await until('the end', async () => socket.destroyed || socket.readableEnded, underLoad(12_000));
    return received;
  };
  test('plain HTTP/2', async () =>
    expect(await plain(Buffer.concat([PREFACE, call(1)]))).not.toContain('grpc'));
  test('plain HTTP/1', async () =>
    expect(await plain('GET / HTTP/1.1\r\nhost: x\r\n\r\n')).not.toContain('HTTP/1.1 2'));

  test.each<[string, SecureVersion, string[] | undefined]>([
    ['TLS 1.0', 'TLSv1', ['h2']],
    ['TLS 1.1', 'TLSv1.1', ['h2']],
    ['HTTP/1.1 by ALPN', 'TLSv1.3', ['http/1.1']],
    ['no ALPN', 'TLSv1.3', undefined],
  ])('%s', async (_, version, protocols) => {
    const socket = connectTls({
      ...place(),
      servername: 'localhost',
      ca: roots(),
      minVersion: version,
      maxVersion: version,
      ciphers: 'DEFAULT@SECLEVEL=0',
      ...(protocols && { ALPNProtocols: protocols }),
    });
    open.push(socket);
    socket.on('error', () => undefined);
    socket.resume();
    await until('the end', async () => socket.destroyed || socket.readableEnded, underLoad(5_000));
  });
  test.each(['TLSv1.2', 'TLSv1.3'] as const)('%s is taken', async (version) => {
    const socket = connectTls({
      ...place(),
      servername: 'localhost',
      ca: roots(),
      ALPNProtocols: ['h2'],
      minVersion: version,
      maxVersion: version,
    });
    open.push(socket);
    await once(socket, 'secureConnect');
    expect([socket.authorized, socket.alpnProtocol]).toEqual([true, 'h2']);
  });
  test.each([
    { 'content-type': 'application/json' },
    { 'content-type': 'application/grpc-web' },
    { ':method': 'GET' },
  ])('headers %j', async (headers) => {
    expect(await ask(headers, headers[':method'] ? undefined : framed(request))).toEqual({
      http: 415,
    });
  });
  test.each([
    '/istio.v1.auth.IstioCertificateService/DeleteCertificate',
    '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    '/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo',
    '/grpc.health.v1.Health/Check',
    '/constructor',
    '/',
  ])('method %s is UNIMPLEMENTED', async (path) => {
    expect(await ask({ ':path': path }, framed(request))).toEqual({
      http: 200,
      grpc: UNIMPLEMENTED,
    });
  });
});
