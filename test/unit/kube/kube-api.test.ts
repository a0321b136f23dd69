import { writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { createKubeApi, type KubeApi, type KubeEvent } from '../../../agent/kube/kube-api';
import { loadKubeConfig } from '../../../agent/kube/kube-config';
import { isKubeStatus } from '../../../agent/kube/kube-error';
import { dnsName, HOUR_MS } from '../../support/certs';
import { makeJwt } from '../../support/fake-istio-csr';
import {
  type HttpsServer,
  type HttpsServerOptions,
  startHttpsServer,
} from '../../support/https-server';
import { tempDir } from '../../support/temp-dir';
import { testDeps } from '../../support/test-deps';
import { until } from '../../support/until';

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

interface World {
  readonly api: KubeApi;
  readonly server: HttpsServer;
  readonly tokenFile: string;
  readonly caFile: string;
}

/** An API server that answers by `listener`, and a client of it by kubeconfig, with token file and CA file. */
async function world(
  listener: (request: IncomingMessage, response: ServerResponse) => unknown,
  options: HttpsServerOptions = {},
): Promise<World> {
  const server = await startHttpsServer(
    (request, response) => void listener(request, response),
    options,
  );
  const dir = tempDir();
  const [tokenFile, caFile] = [join(dir, 'token'), join(dir, 'ca.crt')];
  writeFileSync(tokenFile, 'first-token\n');
  writeFileSync(caFile, server.caPem);
  const api = await connect(dir, server.url);
  closers.push(server.close);
  return { api, server, tokenFile, caFile };
}

async function connect(dir: string, url: string): Promise<KubeApi> {
  const kubeconfig = join(dir, 'kubeconfig');
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      'current-context': 'here',
      contexts: [{ name: 'here', context: { cluster: 'c', user: 'u', namespace: 'shop' } }],
      clusters: [{ name: 'c', cluster: { server: url, 'certificate-authority': 'ca.crt' } }],
      users: [{ name: 'u', user: { tokenFile: 'token' } }],
    }),
  );
  const deps = testDeps();
  const api = createKubeApi(await loadKubeConfig({ kubeconfig, env: {} }, deps), deps);
  closers.push(() => api.close());
  return api;
}

const answer = (
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
) =>
  response
    .writeHead(status, { 'content-type': 'application/json', ...headers })
    .end(JSON.stringify(body));

const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    (caught: unknown) => caught,
  );

describe('a request to the Kubernetes API', () => {
  test('carries the token and JSON both ways, over one connection', async () => {
    const seen: unknown[] = [];
    const { api, server } = await world(async (request, response) => {
      const body = (await request.setEncoding('utf8').toArray()).join('');
      seen.push([
        request.method,
        request.url,
        request.headers.authorization,
        request.headers['content-type'],
        body,
      ]);
      answer(response, 201, { kind: 'Thing' });
    });
    expect(await api.request('POST', '/api/v1/things', { body: { name: 'x' } })).toEqual({
      kind: 'Thing',
    });
    for (let count = 0; count < 4; count += 1) await api.request('GET', '/api/v1/things/x?a=b');
    expect(seen.slice(0, 2)).toEqual([
      ['POST', '/api/v1/things', 'Bearer first-token', 'application/json', '{"name":"x"}'],
      ['GET', '/api/v1/things/x?a=b', 'Bearer first-token', undefined, ''],
    ]);
    expect(server.connections()).toBe(1);
    expect(api.namespace).toBe('shop');
  });

  test.each([
    [400, 'BadRequest', 'ERR_CA_REJECTED', 'slow'],
    [403, 'Forbidden', 'ERR_CA_REJECTED', 'slow'],
    [404, 'NotFound', 'ERR_CA_REJECTED', 'slow'],
    [409, 'Conflict', 'ERR_CA_REJECTED', 'soon'],
    [410, 'Expired', 'ERR_CA_REJECTED', 'soon'],
    [422, 'Invalid', 'ERR_CA_REJECTED', 'slow'],
    [429, 'TooManyRequests', 'ERR_CA_UNAVAILABLE', 'soon'],
    [500, 'InternalError', 'ERR_CA_UNAVAILABLE', 'soon'],
    [503, 'ServiceUnavailable', 'ERR_CA_UNAVAILABLE', 'soon'],
  ])('answered %i %s is %s, to be tried again %s', async (status, reason, code, retry) => {
    const { api } = await world((_, response) =>
      answer(response, status, { kind: 'Status', reason, message: `because of ${reason}` }),
    );
    const error = await failure(api.request('GET', '/api/v1/things?x=y'));
    expect(error).toMatchObject({
      code,
      retry,
      status,
      reason,
      message: `GET /api/v1/things: ${status} because of ${reason}`,
    });
    expect(isKubeStatus(error, status)).toBe(true);
  });

  test.each([
    [{ 'retry-after': '7' }, {}, 7_000],
    [{}, { details: { retryAfterSeconds: 3 } }, 3_000],
    [{ 'retry-after': '86400' }, {}, 300_000],
    [{ 'retry-after': 'soon' }, {}, undefined],
  ])('answered 429 with %j and %j waits for %p ms', async (headers, status, retryAfterMs) => {
    const { api } = await world((_, response) =>
      answer(response, 429, status, headers as Record<string, string>),
    );
    expect(await failure(api.request('GET', '/x'))).toMatchObject({
      code: 'ERR_CA_UNAVAILABLE',
      retryAfterMs,
    });
  });

  test('answered 401 reads the token again and is sent once more', async () => {
    const tokens: (string | undefined)[] = [];
    const { api, tokenFile } = await world((request, response) => {
      tokens.push(request.headers.authorization);
      if (request.headers.authorization === 'Bearer second-token')
        answer(response, 200, { ok: true });
      else answer(response, 401, { reason: 'Unauthorized', message: 'Unauthorized' });
    });
    expect(await failure(api.request('GET', '/x'))).toMatchObject({
      code: 'ERR_TOKEN',
      retry: 'slow',
      status: 401,
    });
    expect(tokens).toHaveLength(2);
    writeFileSync(tokenFile, 'second-token');
    expect(await api.request('GET', '/x')).toEqual({ ok: true });
  });

  test('field: answered 401 although the token is alive may be an outage: an API server that starts or stops says so too', async () => {
    const { api, tokenFile } = await world((_, response) =>
      answer(response, 401, { reason: 'Unauthorized' }),
    );
    for (const [secondsLeft, aud, retry] of [
      [600, ['https://kubernetes.default.svc'], 'unsure'],
      [600, ['istio-ca'], 'slow'],
      [-1, ['https://kubernetes.default.svc'], 'slow'],
    ] as const) {
      writeFileSync(tokenFile, makeJwt({ aud, exp: Math.floor(Date.now() / 1_000) + secondsLeft }));
      expect(await failure(api.request('GET', '/x'))).toMatchObject({ code: 'ERR_TOKEN', retry });
    }
  });

  test.each([
    ['is empty', '\n'],
    ['has two lines', 'one\ntwo'],
    ['is binary', '\u0000\u0001'],
  ])('with a token file that %s is not sent, and the error does not show it', async (_, text) => {
    const { api, tokenFile } = await world((_request, response) => answer(response, 200, {}));
    writeFileSync(tokenFile, text);
    const error = await failure(api.request('GET', '/x'));
    expect(error).toMatchObject({ code: 'ERR_TOKEN' });
    expect(String(error)).not.toContain('two');
  });

  test('trusts the server by the CA file of now, and makes a new connection when that changes', async () => {
    const { api, server, caFile } = await world((_, response) => answer(response, 200, {}));
    const other = await startHttpsServer(() => undefined);
    closers.push(other.close);
    writeFileSync(caFile, other.caPem);
    expect(await failure(api.request('GET', '/x'))).toMatchObject({
      code: 'ERR_CA_UNAVAILABLE',
      retry: 'soon',
    });
    writeFileSync(caFile, server.caPem);
    expect(await api.request('GET', '/x')).toEqual({});
  });

  test.each([
    ['for another name', { names: [dnsName('elsewhere.example')] }],
    ['that has expired', { notAfterAt: Date.now() - HOUR_MS / 4 }],
  ])(
    'C24 to a server with a certificate %s is not made, and no token is sent',
    async (_, options) => {
      let asked = 0;
      const { api } = await world((_request, response) => {
        asked += 1;
        answer(response, 200, {});
      }, options);
      expect(await failure(api.request('GET', '/x'))).toMatchObject({ code: 'ERR_CA_UNAVAILABLE' });
      expect(asked).toBe(0);
    },
  );

  test.each([
    ['nothing', () => undefined],
    ['a head and silence', (response: ServerResponse) => response.writeHead(200).flushHeaders()],
    ['half a body', (response: ServerResponse) => response.writeHead(200).write('{"a":')],
  ])('C15 answered by %s ends at its deadline', async (_, behave) => {
    const { api } = await world((_request, response) => behave(response));
    expect(await failure(api.request('GET', '/x', { timeoutMs: 200 }))).toMatchObject({
      code: 'ERR_TIMEOUT',
      retry: 'soon',
    });
  });

  test('C16 whose connection breaks in the middle of the answer can be tried again', async () => {
    const { api } = await world((_, response) => {
      response.writeHead(200, { 'content-length': '100' }).write('{"a":');
      setImmediate(() => response.socket?.destroy());
    });
    expect(await failure(api.request('GET', '/x'))).toMatchObject({
      code: 'ERR_CA_UNAVAILABLE',
      retry: 'soon',
    });
  });

  test.each([
    ['HTML', '<html>super-secret</html>'],
    ['nothing', ''],
  ])('answered by %s is refused, without quoting it', async (_, body) => {
    const { api } = await world((_request, response) => response.writeHead(200).end(body));
    const error = await failure(api.request('GET', '/x'));
    expect(error).toMatchObject({ code: 'ERR_CA_RESPONSE' });
    expect(String(error)).not.toContain('super-secret');
  });

  test('C12 answered by more than 16 MiB is broken off there', async () => {
    const piece = Buffer.alloc(1 << 20, 'x');
    let sent = 0;
    const { api } = await world((_, response) => {
      const more = () => {
        while (!response.destroyed && sent < 64 && response.write(piece)) sent += 1;
      };
      response.writeHead(200).on('drain', more);
      more();
    });
    expect(await failure(api.request('GET', '/x'))).toMatchObject({
      code: 'ERR_CA_RESPONSE',
      retry: 'slow',
    });
    expect(sent).toBeLessThan(40);
  });

  test('ends when its signal fires, and when the client is closed', async () => {
    const { api } = await world(() => undefined);
    expect(await failure(api.request('GET', '/x', { signal: AbortSignal.abort() }))).toMatchObject({
      code: 'ERR_ABORTED',
    });
    expect(
      await failure(api.request('GET', '/x', { signal: AbortSignal.timeout(50) })),
    ).toMatchObject({ code: 'ERR_ABORTED' });
    const pending = failure(api.request('GET', '/x'));
    await api.close();
    expect(await pending).toMatchObject({ code: 'ERR_ABORTED' });
    expect(await failure(api.request('GET', '/x'))).toMatchObject({ code: 'ERR_ABORTED' });
  });
});

describe('a watch of the Kubernetes API', () => {
  const line = (type: string, object: unknown) => `${JSON.stringify({ type, object })}\n`;

  async function watching(
    behave: (response: ServerResponse) => unknown,
    signal = new AbortController().signal,
  ) {
    const events: KubeEvent[] = [];
    const { api } = await world((request, response) => {
      expect(request.url).toMatch(
        /^\/things\?fieldSelector=x&watch=true&allowWatchBookmarks=true&timeoutSeconds=\d+$/,
      );
      behave(response.writeHead(200));
    });
    const ended = api.watch('/things?fieldSelector=x', (event) => events.push(event), signal);
    return { api, events, ended };
  }

  test('tells every event in order, however the bytes arrive, and returns when the server ends it', async () => {
    const text =
      line('ADDED', { name: 'ä' }) + line('BOOKMARK', { v: 1 }) + line('DELETED', { name: 'b' });
    const { events, ended } = await watching(async (response) => {
      for (const octet of Buffer.from(text)) {
        response.write(Buffer.of(octet));
        await new Promise(setImmediate);
      }
      response.end();
    });
    await ended;
    expect(events.map(({ type }) => type)).toEqual(['ADDED', 'BOOKMARK', 'DELETED']);
    expect(events[0]).toEqual({ type: 'ADDED', object: { name: 'ä' } });
  });

  test('throws an ERROR event as the answer that it is', async () => {
    const status = {
      kind: 'Status',
      code: 410,
      reason: 'Expired',
      message: 'too old resource version',
    };
    const { ended } = await watching((response) =>
      response.end(line('ADDED', {}) + line('ERROR', status)),
    );
    expect(await failure(ended)).toMatchObject({ status: 410, reason: 'Expired', retry: 'soon' });
  });

  test.each([
    ['that is no JSON', '{"type":\n'],
    ['without a type', '{"object":{}}\n'],
    ['without an object', '{"type":"ADDED"}\n'],
    ['that is null', 'null\n'],
  ])('refuses a line %s', async (_, text) => {
    const { ended, events } = await watching((response) => response.end(text));
    expect(await failure(ended)).toMatchObject({ code: 'ERR_CA_RESPONSE' });
    expect(events).toEqual([]);
  });

  test('refuses an event without an end', async () => {
    const { ended } = await watching((response) => {
      const piece = Buffer.alloc(1 << 20, 'x');
      const more = () => {
        while (!response.destroyed && response.write(piece));
      };
      response.on('drain', more);
      more();
    });
    expect(await failure(ended)).toMatchObject({ code: 'ERR_CA_RESPONSE' });
  });

  test('throws when the connection breaks, when its listener throws and when its signal fires', async () => {
    const broken = await watching((response) => {
      response.write(line('ADDED', {}));
      setImmediate(() => response.socket?.destroy());
    });
    expect(await failure(broken.ended)).toMatchObject({ code: 'ERR_CA_UNAVAILABLE' });
    const giveUp = new AbortController();
    const silent = await watching((response) => response.write(line('ADDED', {})), giveUp.signal);
    await until('the first event', async () => silent.events.length === 1);
    giveUp.abort();
    expect(await failure(silent.ended)).toMatchObject({ code: 'ERR_ABORTED' });
    const { api } = await world((_, response) => response.writeHead(200).write(line('ADDED', {})));
    const thrown = new Error('from the listener');
    const throwing = api.watch(
      '/x',
      () => {
        throw thrown;
      },
      new AbortController().signal,
    );
    expect(await failure(throwing)).toBe(thrown);
  });
});
