import { type IncomingHttpHeaders, request } from 'node:http';
import { connect } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { AgentView } from '../../../agent/admin/agent-view';
import { createAdminServer } from '../../../agent/admin/http-server';
import { createMetrics } from '../../../agent/admin/metrics';
import { systemClock } from '../../../agent/base/clock';
import type { HttpServer } from '../../../agent/base/http-server';
import { noLog } from '../../../agent/base/log';
import { parseExposition } from '../../support/exposition';
import { fakeView } from '../../support/fake-view';

const open: HttpServer[] = [];
afterEach(async () => {
  for (const server of open.splice(0)) await server.close();
});

async function start(view: AgentView = fakeView(), address = '127.0.0.1:0'): Promise<HttpServer> {
  const server = await createAdminServer(
    { address, origin: 'default', view, metrics: createMetrics() },
    { clock: systemClock, log: noLog },
  );
  open.push(server);
  return server;
}

interface Reply {
  readonly status: number | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

function ask(
  server: HttpServer,
  path: string,
  how: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const asked = request(`http://${server.address}`, {
      path,
      method: how.method ?? 'GET',
      headers: how.headers ?? {},
      agent: false,
    });
    asked.on('error', reject);
    asked.on('response', (response) => {
      let body = '';
      response.on('data', (chunk) => {
        body += chunk;
      });
      response.on('end', () =>
        resolve({ status: response.statusCode, headers: response.headers, body }),
      );
    });
    asked.end(how.body);
  });
}

/** Sends bytes as they are; resolves with what came until the server hung up. */
function raw(server: HttpServer, bytes: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(Number(server.address.split(':').at(-1)), '127.0.0.1', () =>
      socket.write(bytes),
    );
    let got = '';
    socket.on('data', (data) => {
      got += data;
    });
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(got));
  });
}

const NOT_READY = {
  ready: false,
  reasons: ['spiffe://td/a: no certificate yet: sign: no answer within 5 s', 'a\nb\u0000c'],
};

describe('health and metrics over HTTP', () => {
  test('ready is 200 while all is well', async () => {
    expect(await ask(await start(), '/healthz/ready')).toMatchObject({
      status: 200,
      body: 'ready\n',
    });
  });

  test('G11 ready is 503 with every reason on a line of its own, while live stays 200', async () => {
    const server = await start(fakeView({ status: NOT_READY }));
    expect(await ask(server, '/healthz/ready')).toMatchObject({
      status: 503,
      body: `${NOT_READY.reasons[0]}\na b c\n`,
    });
    expect(await ask(server, '/healthz/live')).toMatchObject({ status: 200, body: 'live\n' });
  });

  test.each([
    ['/healthz/ready?verbose', {}],
    ['/healthz/ready?verbose=1', {}],
    ['/healthz/ready', { accept: 'application/json' }],
  ])('ready says the same in JSON to %s %j', async (path, headers) => {
    const no = await ask(await start(fakeView({ status: NOT_READY })), path, { headers });
    expect([no.status, no.headers['content-type'], JSON.parse(no.body)]).toEqual([
      503,
      'application/json',
      NOT_READY,
    ]);
    const yes = await ask(await start(), path, { headers });
    expect([yes.status, JSON.parse(yes.body)]).toEqual([200, { ready: true, reasons: [] }]);
  });

  test.each(['/metrics', '/stats/prometheus'])('%s is the exposition', async (path) => {
    const reply = await ask(await start(), path);
    expect(reply).toMatchObject({
      status: 200,
      headers: { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' },
    });
    expect(parseExposition(reply.body).has('keyturn_build_info')).toBe(true);
  });

  test('HEAD answers with the same headers and no body', async () => {
    expect(await ask(await start(), '/healthz/ready', { method: 'HEAD' })).toMatchObject({
      status: 200,
      headers: { 'content-length': '6' },
      body: '',
    });
  });

  test('any other method is 405 and names those that are allowed', async () => {
    const server = await start();
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'TRACE']) {
      expect(await ask(server, '/healthz/ready', { method })).toMatchObject({
        status: 405,
        headers: { allow: 'GET, HEAD' },
      });
    }
  });

  test('H21 any other path is 404 and repeats nothing of what was asked', async () => {
    const server = await start();
    for (const path of [
      '/',
      '/debug/pprof/heap',
      '/config_dump',
      '/quitquitquit',
      '/constructor',
      '/__proto__',
      '/metrics/',
      '//metrics',
      '/%2e',
    ]) {
      const reply = await ask(server, path, { headers: { 'x-canary': 'canary', host: 'canary' } });
      expect([path, reply.status, reply.body]).toEqual([path, 404, 'not found\n']);
      expect(JSON.stringify(reply.headers)).not.toContain('canary');
    }
  });

  test('a request body is not read and ends the connection', async () => {
    const server = await start();
    const reply = await ask(server, '/healthz/ready', {
      headers: { 'content-length': '5' },
      body: 'hello',
    });
    expect(reply).toMatchObject({ status: 200, headers: { connection: 'close' } });
  });

  test('headers beyond 8 KiB, garbage and TLS are refused and harm nobody', async () => {
    const server = await start();
    expect(
      await raw(server, `GET / HTTP/1.1\r\nhost: a\r\nx: ${'y'.repeat(9_000)}\r\n\r\n`),
    ).toContain('431');
    expect(await raw(server, 'nonsense\r\n\r\n')).toContain('400');
    expect(await raw(server, '\x16\x03\x01\x02\x00\x01\x00\x01\xfc')).toContain('400');
    expect((await ask(server, '/healthz/live')).status).toBe(200);
  });

  test('a failure inside answers 500 without its words', async () => {
    const view = fakeView({
      reasons: () => {
        throw new Error('canary');
      },
    });
    expect(await ask(await start(view), '/healthz/ready')).toMatchObject({
      status: 500,
      body: 'internal error\n',
    });
  });

  test('what comes beyond the limit takes the place of the connection that has been there longest', async () => {
    const server = await start();
    const port = Number(server.address.split(':').at(-1));
    const idle = Array.from({ length: 256 }, () => connect(port, '127.0.0.1'));
    await Promise.all(
      idle.map((socket) => new Promise((resolve) => socket.once('connect', resolve))),
    );
    const ended = Promise.race(
      idle.map(
        (socket) => new Promise((resolve) => socket.resume().once('close', () => resolve(socket))),
      ),
    );
    expect((await ask(server, '/healthz/live')).status).toBe(200);
    expect(idle.indexOf((await ended) as (typeof idle)[number])).toBe(0);
    expect(idle.filter(({ destroyed }) => destroyed)).toHaveLength(1);
    for (const socket of idle) socket.destroy();
  });

  test('a connection is for one request: those that come behind it are not answered', async () => {
    const server = await start();
    const one = 'GET /healthz/live HTTP/1.1\r\nhost: a\r\n\r\n';
    expect((await raw(server, one)).match(/HTTP\/1.1 200/g)).toHaveLength(1);
    expect((await raw(server, one.repeat(500))).match(/HTTP\/1.1 200/g)).toHaveLength(1);
  });

  test('G12 a thousand probes in bursts of a hundred are all answered', async () => {
    const server = await start();
    for (let burst = 0; burst < 10; burst += 1) {
      const replies = await Promise.all(
        Array.from({ length: 100 }, () => ask(server, '/healthz/ready')),
      );
      expect(replies.map((reply) => reply.status)).toEqual(replies.map(() => 200));
    }
  });

  test('an address that is taken is refused by name', async () => {
    const { address } = await start();
    await expect(start(fakeView(), address)).rejects.toMatchObject({
      code: 'ERR_SOCKET',
      message: `listen on ${address} for health and metrics: the address is in use`,
      hint: "choose another address with --admin-address; Istio's agent has 15020: beside it, take 127.0.0.1:15022",
    });
  });

  test('an address that is not one of ours is refused too', async () => {
    await expect(start(fakeView(), '192.0.2.1:0')).rejects.toMatchObject({
      code: 'ERR_SOCKET',
      message: expect.stringContaining('EADDRNOTAVAIL'),
    });
  });

  test('close ends open connections at once and frees the port', async () => {
    const server = await start();
    const hanging = raw(server, 'GET /healthz/ready HTTP/1.1\r\n');
    await new Promise((resolve) => setTimeout(resolve, 20));
    await Promise.all([server.close(), server.close(), hanging]);
    await start(fakeView(), server.address);
  });
});
