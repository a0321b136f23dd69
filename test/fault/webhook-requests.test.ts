import { type Agent, request } from 'node:https';
import { connect as connectTcp } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { parseHostPort } from '../../agent/base/host-port';
import type { AdmissionRequest, Verdict } from '../../agent/webhook/admission-review';
import { createAdmissionServer } from '../../agent/webhook/admission-server';
import type { HttpsListener } from '../../agent/webhook/https-listener';
import { makeServerKey } from '../support/https-server';
import { underLoad } from '../support/load';
import { testDeps } from '../support/test-deps';
import { until } from '../support/until';

const MIB = 1024 * 1024;
const REQUEST = {
  uid: 'u',
  kind: { group: '', version: 'v1', kind: 'Pod' },
  operation: 'CREATE',
  namespace: 'shop',
  object: {},
};
const review = (change: object = {}) =>
  JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: { ...REQUEST, ...change },
  });

let server: HttpsListener;
let ca: Buffer;
let port: number;
let decide: (request: AdmissionRequest) => Verdict;

beforeAll(async () => {
  const key = await makeServerKey();
  ca = key.caPem;
  server = await createAdmissionServer(
    { address: parseHostPort('127.0.0.1:0', 'x'), decide: (asked) => decide(asked) },
    testDeps(),
  );
  server.use(key);
  port = parseHostPort(server.address, 'x').port;
});
beforeEach(() => {
  decide = () => ({ kind: 'allowed', patch: [], warnings: [] });
});
afterAll(() => server.close());

interface Sent {
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Record<string, string | number>;
  readonly body?: string | Buffer;
  readonly agent?: Agent;
}

function send({
  method = 'POST',
  path = '/inject?timeout=5s',
  headers = {},
  body = review(),
}: Sent = {}) {
  return new Promise<{ status: number; body: string; closed: boolean }>((resolve, reject) => {
    const head = { 'content-type': 'application/json', ...headers };
    const asked = request(
      { host: '127.0.0.1', port, ca, method, path, headers: head, agent: false },
      (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('end', () =>
          resolve({
            status: response.statusCode!,
            body: text,
            closed: response.headers.connection === 'close',
          }),
        );
      },
    );
    asked.on('error', reject);
    asked.end(body);
  });
}

/** A connection past its handshake, on which a test writes as it likes. */
function open(): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, ca }, () => resolve(socket));
    socket.on('error', reject);
  });
}

const ended = (socket: TLSSocket) =>
  new Promise<string>((resolve) => {
    let text = '';
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    socket.on('close', () => resolve(text));
  });

const stillAnswers = async () => expect(await send()).toMatchObject({ status: 200 });

test('a review is answered by its uid', async () => {
  const { status, body } = await send();
  expect(status).toBe(200);
  expect(JSON.parse(body)).toMatchObject({
    kind: 'AdmissionReview',
    response: { uid: 'u', allowed: true },
  });
});

test.each([
  ['W26 another path', { path: '/' }, 404, 'not found'],
  ['W27 a path of the prototype', { path: '/constructor' }, 404, 'not found'],
  ['W28 another method', { method: 'GET', body: '' }, 405, 'method not allowed'],
  [
    'W29 no content type',
    { headers: { 'content-type': '' } },
    415,
    'content-type: must be application/json',
  ],
  [
    'W30 YAML',
    { headers: { 'content-type': 'application/yaml' } },
    415,
    'content-type: must be application/json',
  ],
  [
    'W31 something packed',
    { headers: { 'content-encoding': 'gzip' } },
    415,
    'content-encoding: must not be there',
  ],
  ['W32 no review', { body: '{}' }, 400, 'apiVersion: must be admission.k8s.io/v1'],
  [
    'W33 more than any object, as it says itself',
    { body: Buffer.alloc(5 * MIB, 0x20) },
    413,
    'body: must not be longer than 3145728 bytes',
  ],
])('%s is refused, and the next one is served', async (_, sent, status, text) => {
  const answer = await send(sent).catch((caught: NodeJS.ErrnoException) => caught.code);
  // A body that is still being written when the answer comes may break off at its sender.
  if (answer !== 'EPIPE' && answer !== 'ECONNRESET')
    expect(answer).toMatchObject({ status, body: `${text}\n` });
  else expect(status).toBe(413);
  await stillAnswers();
});

test('W34 a body without end, in pieces, is cut off', async () => {
  const socket = await open();
  const over = ended(socket);
  socket.on('error', () => undefined);
  socket.write(
    'POST /inject HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n',
  );
  const piece = `${(64 * 1024).toString(16)}\r\n${' '.repeat(64 * 1024)}\r\n`;
  const more = setInterval(() => {
    if (!socket.destroyed && socket.writableLength < MIB) socket.write(piece);
  }, 1);
  const said = await over;
  clearInterval(more);
  expect(said === '' || said.startsWith('HTTP/1.1 413 ')).toBe(true);
  await stillAnswers();
});

test('W35 a body that never comes is given up', async () => {
  const socket = await open();
  const over = ended(socket);
  socket.write(
    'POST /inject HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{',
  );
  const startedAt = Date.now();
  expect(await over).toMatch(/^HTTP\/1.1 408 /);
  expect(Date.now() - startedAt).toBeLessThan(underLoad(15_000));
  await stillAnswers();
});

test('W36 headers that come one octet a second are given up', async () => {
  const socket = await open();
  const over = ended(socket);
  const drip = setInterval(() => !socket.destroyed && socket.write('x'), 1_000);
  socket.write('POST /inject HTTP/1.1\r\nX: ');
  const said = await over;
  expect(said === '' || said.startsWith('HTTP/1.1 408 ')).toBe(true);
  clearInterval(drip);
  await stillAnswers();
});

test('W37 headers without end are refused', async () => {
  const answer = await send({ headers: { 'x-long': 'x'.repeat(64 * 1024) } }).catch(
    (caught: NodeJS.ErrnoException) => caught.code,
  );
  if (typeof answer === 'object') expect(answer.status).toBe(431);
  await stillAnswers();
});

test('W38 what is no TLS, and a handshake that stops, hold up nobody', async () => {
  const plain = connectTcp(port, '127.0.0.1');
  plain.on('error', () => undefined).write('POST /inject HTTP/1.1\r\n\r\n');
  const silent = connectTcp(port, '127.0.0.1');
  silent.on('error', () => undefined);
  await stillAnswers();
  await until('the silent one to be given up', async () => silent.destroyed || silent.closed);
  plain.destroy();
});

test('W39 many large bodies at once are refused as a whole, not kept', async () => {
  const sockets = await Promise.all(Array.from({ length: 16 }, open));
  const answers = sockets.map(async (socket) => {
    socket.on('error', () => undefined);
    const over = ended(socket);
    socket.write(
      `POST /inject HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${3 * MIB}\r\n\r\n`,
    );
    socket.write(Buffer.alloc(3 * MIB - 1, 0x20));
    return over;
  });
  const said = await Promise.race(answers);
  expect(said === '' || said.startsWith('HTTP/1.1 503 ')).toBe(true);
  for (const socket of sockets) socket.destroy();
  await Promise.all(answers);
  await stillAnswers();
});

test('W40 a fault of ours is a 500, without a word of what it was', async () => {
  decide = () => {
    throw new TypeError('secret thing');
  };
  expect(await send()).toMatchObject({ status: 500, body: 'internal error\n' });
  decide = () => ({ kind: 'allowed', patch: [], warnings: [] });
  await stillAnswers();
});

test('a pod with 1.5 MiB of annotations is read', async () => {
  const object = { metadata: { annotations: { a: 'x'.repeat(1.5 * MIB) } } };
  expect(await send({ body: review({ object }) })).toMatchObject({ status: 200 });
});

test('at its end it answers what has arrived, and leaves no connection', async () => {
  const own = await createAdmissionServer(
    { address: parseHostPort('127.0.0.1:0', 'x'), decide: (asked) => decide(asked) },
    testDeps(),
  );
  await own.close();
  await own.close();
  await expect(connectOnce(parseHostPort(own.address, 'x').port)).rejects.toMatchObject({
    code: 'ECONNREFUSED',
  });
});

function connectOnce(to: number): Promise<void> {
  return new Promise((resolve, reject) => {
    connectTcp(to, '127.0.0.1', resolve).on('error', reject);
  });
}
