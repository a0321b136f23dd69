import { promises as dns } from 'node:dns';
import { createServer, type OutgoingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net';
import { gzipSync } from 'node:zlib';
import { Metadata, status } from '@grpc/grpc-js';
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import { systemClock, withDeadline } from '../../agent/base/clock';
import { directEngine } from '../../agent/identity/direct-engine';
import { encodeName } from '../../agent/identity/name';
import { createKeeper } from '../../agent/lifecycle/keeper';
import type { CaClient } from '../../ca-client/ca-client';
import { CaChannel } from '../../ca-client/istio/channel';
import { HOUR_MS, makeCsr, makeKey, TEST_ID } from '../support/certs';
import { type FakeCaOptions, startFakeIstioCsr, startFakeIstiod } from '../support/fake-istio-csr';
import { type Fault, startFaultServer } from '../support/fault-server';
import { freePort } from '../support/free-port';
import {
  type ClientOptions,
  closing,
  id,
  issue,
  openClient,
  WorkloadFiles,
} from '../support/istio-world';
import { underLoad } from '../support/load';
import { testDeps } from '../support/test-deps';
import { liveCa, serverPair } from '../support/tls-ca';
import { frame, RESPONSE_HEADERS, type UnaryCall } from '../support/unary-server';
import { until } from '../support/until';

/** Long enough for an answer on a busy machine, short enough to wait for in each test. */
const ATTEMPT_MS = 500;
const SOON = { code: 'ERR_CA_UNAVAILABLE', retry: 'soon' };

async function world(options: Partial<ClientOptions> = {}, fakeOptions: FakeCaOptions = {}) {
  const server = closing(await startFaultServer(fakeOptions));
  const token = server.fake.token(TEST_ID);
  const files = new WorkloadFiles().roots(server.fake.signer).token(token);
  const opened = await openClient(files, { address: server.address, ...options });
  return { server, files, token, ...opened };
}

/** Under a deadline, as the owner of an attempt keeps it. */
const issueWithin = (ca: CaClient, ms = ATTEMPT_MS) =>
  withDeadline(systemClock, ms, `sign at ${ca.name}`, undefined, (signal) => issue(ca, signal));

/** A call on a connection whose end the client may not have seen yet: it works, or it asks for another soon, which does. */
const issueSoon = (ca: CaClient) =>
  issue(ca).catch((caught) => {
    expect(caught).toMatchObject(SOON);
    return issue(ca);
  });

/** Half of a message, or none of it. */
const begin = (stream: ServerHttp2Stream, bytes = frame(Buffer.alloc(1_000)).subarray(0, 100)) => {
  stream.respond(RESPONSE_HEADERS);
  stream.write(bytes);
};

/** As a proxy answers that knows nothing of gRPC. */
const answerHttp = (stream: ServerHttp2Stream, headers: OutgoingHttpHeaders) => {
  stream.respond(headers);
  stream.end('no gRPC here');
};

/** A call that is answered by hand. */
const byHand = (work: (call: UnaryCall) => void): Fault => ({
  call: (call) => {
    work(call);
    return 'nothing';
  },
});

describe('a CA that hangs', () => {
  test.each<[string, Fault]>([
    ['TCP without TLS', 'no tls'],
    ['TLS and then silence', 'tls then silence'],
    ['a call that is never answered', byHand(() => undefined)],
    ['headers and then silence', byHand(({ stream }) => stream.respond(RESPONSE_HEADERS))],
    [
      'a byte now and then',
      byHand(({ stream }) => {
        begin(stream, Buffer.alloc(1));
        const drip = setInterval(() => stream.write(Buffer.alloc(1)), 100);
        stream.on('close', () => clearInterval(drip));
      }),
    ],
  ])(
    'C15 with %s is left at the deadline; the next attempt has a connection of its own',
    async (_, fault) => {
      const { server, ca } = await world();
      server.behave(fault);
      const startedAt = performance.now();
      await expect(issueWithin(ca)).rejects.toMatchObject({ code: 'ERR_TIMEOUT', retry: 'soon' });
      expect(performance.now() - startedAt).toBeLessThan(underLoad(ATTEMPT_MS + 1_000));
      const before = server.connections();
      server.behave('none');
      await expect(issue(ca)).resolves.toBeDefined();
      expect(server.connections()).toBe(before + 1);
    },
  );
});

test('an attempt that was refused leaves no connection to a CA that comes back', async () => {
  const port = await freePort();
  const { ca } = await world({ address: `127.0.0.1:${port}` });
  await expect(issue(ca)).rejects.toMatchObject(SOON);
  const open = new Set<Socket>();
  const back = createTcpServer((socket) => {
    open.add(socket);
    socket.on('error', () => undefined).on('close', () => open.delete(socket));
  });
  await new Promise<void>((done) => back.listen(port, '127.0.0.1', done));
  // gRPC tries again after a second, give or take a fifth.
  await new Promise((done) => setTimeout(done, 2_000));
  const left = open.size;
  for (const socket of open) socket.destroy();
  await new Promise((done) => back.close(done));
  expect(left).toBe(0);
});

/** What is done in the middle of a message. */
const midway = (work: (call: UnaryCall) => void) =>
  byHand((call) => {
    begin(call.stream);
    setImmediate(() => work(call));
  });

describe('a connection that breaks', () => {
  test.each<[string, Fault]>([
    ['a reset instead of TLS', 'reset at once'],
    [
      'the end of the connection in the middle of a message',
      midway(({ session }) => session.destroy()),
    ],
    ['a reset of the stream in the middle of a message', midway(({ stream }) => stream.close(2))],
    ['the end of the stream in the middle of a message', midway(({ stream }) => stream.end())],
    [
      'a GOAWAY that drops the call',
      byHand(({ session }) => {
        session.goaway(0, 0);
        setImmediate(() => session.destroy());
      }),
    ],
    [
      'the end of the stream without a status',
      byHand(({ stream }) => stream.respond(RESPONSE_HEADERS, { endStream: true })),
    ],
    [
      'an answer that is no gRPC',
      byHand(({ stream }) => answerHttp(stream, { ':status': 502, 'content-type': 'text/html' })),
    ],
  ])('C16 by %s fails at once, and the next attempt is on a new one', async (_, fault) => {
    const { server, ca } = await world();
    server.behave(fault);
    await expect(issue(ca)).rejects.toMatchObject(SOON);
    server.behave('none');
    await expect(issue(ca)).resolves.toBeDefined();
  });

  test('C16 by a GOAWAY that lets the call end does not hurt it', async () => {
    const { server, ca } = await world();
    server.behave({ call: ({ session, stream }) => void session.goaway(0, stream.id) });
    await expect(issue(ca)).resolves.toBeDefined();
    server.behave('none');
    await expect(issue(ca)).resolves.toBeDefined();
  });

  test('is kept for the next call, unless its server goes away between them', async () => {
    const { server, ca } = await world();
    await issue(ca);
    await issue(ca);
    expect(server.connections()).toBe(1);
    server.fake.server.calls[0]!.session.destroy();
    await expect(issueSoon(ca)).resolves.toBeDefined();
    expect(server.connections()).toBe(2);
  });
});

describe('a status', () => {
  test.each(['UNKNOWN', 'UNAVAILABLE'] as const)(
    '37 %s is not answered by a second call: when to try again is for the keeper to say',
    async (name) => {
      const { server, ca } = await world();
      server.behave({ call: () => ({ status: status[name] }) });
      await expect(issue(ca)).rejects.toMatchObject(SOON);
      expect(server.fake.server.calls).toHaveLength(1);
    },
  );

  test.each([
    'UNAVAILABLE',
    'DEADLINE_EXCEEDED',
    'RESOURCE_EXHAUSTED',
    'ABORTED',
    'INTERNAL',
    'CANCELLED',
  ] as const)('C17 %s is transient', async (name) => {
    const { server, ca } = await world();
    server.behave({ call: () => ({ status: status[name], words: 'not now' }) });
    await expect(issue(ca)).rejects.toMatchObject({
      ...SOON,
      message: expect.stringContaining(`${name}: not now`),
    });
    server.behave('none');
    await expect(issue(ca)).resolves.toBeDefined();
  });

  test('C18 RESOURCE_EXHAUSTED with a push-back is not repeated before its time', async () => {
    const { server, ca } = await world();
    server.behave({
      call: () => ({
        status: status.RESOURCE_EXHAUSTED,
        trailers: { 'grpc-retry-pushback-ms': '120000' },
      }),
    });
    await expect(issue(ca)).rejects.toMatchObject({ ...SOON, retryAfterMs: 120_000 });
  });

  test('C18 HTTP 429 of a proxy with Retry-After is not repeated before its time', async () => {
    const { server, ca } = await world();
    server.behave(
      byHand(({ stream }) => answerHttp(stream, { ':status': 429, 'retry-after': '60' })),
    );
    await expect(issue(ca)).rejects.toMatchObject({ ...SOON, retryAfterMs: 60_000 });
  });

  test.each(['PERMISSION_DENIED', 'INVALID_ARGUMENT', 'UNIMPLEMENTED'] as const)(
    'C20 %s is a matter of configuration, and not final',
    async (name) => {
      const { server, ca } = await world();
      server.behave({ call: () => ({ status: status[name], words: 'no' }) });
      await expect(issue(ca)).rejects.toMatchObject({
        code: 'ERR_CA_REJECTED',
        retry: 'slow',
        message: expect.stringContaining(`${name}: no`),
      });
      server.behave('none');
      await expect(issue(ca)).resolves.toBeDefined();
    },
  );

  test('C20 of a CA that does not say why is explained by the rule that the request breaks', async () => {
    const fake = closing(await startFakeIstioCsr({ answerAfterMs: 0 }));
    const files = new WorkloadFiles().roots(fake.signer).token(fake.token(TEST_ID));
    const { ca } = await openClient(files, { name: 'istio-csr', address: fake.server.address });
    const csrDer = makeCsr({
      privateKey: makeKey('ec', 'prime256v1'),
      subjectDer: encodeName([['CN', 'admin']]),
    });
    await expect(
      ca.sign({ id, csrDer, ttlSeconds: 60 }, AbortSignal.timeout(5_000)),
    ).rejects.toMatchObject({
      code: 'ERR_CA_REJECTED',
      retry: 'slow',
      hint: expect.stringContaining('istio-csr has the rule csr-common-name'),
    });
  });
});

describe('a reply without measure', () => {
  test.each<[string, Fault]>([
    ['ten mebibytes', { call: () => ({ message: Buffer.alloc(10 << 20) }) }],
    [
      'ten kilobytes that unfold to ten mebibytes',
      byHand(({ stream }) => {
        const folded = gzipSync(Buffer.alloc(10 << 20));
        const compressed = frame(folded);
        compressed[0] = 1;
        stream.respond({ ...RESPONSE_HEADERS, 'grpc-encoding': 'gzip' });
        stream.end(compressed);
      }),
    ],
    [
      'four gibibytes, as its prefix says',
      byHand(({ stream }) => {
        stream.respond(RESPONSE_HEADERS);
        stream.write(Buffer.from([0, 255, 255, 255, 255, 1]));
      }),
    ],
  ])('C12 of %s is not taken in', async (_, fault) => {
    const { server, ca } = await world();
    server.behave(fault);
    const before = process.memoryUsage().rss;
    await expect(issue(ca)).rejects.toMatchObject({
      code: 'ERR_CA_RESPONSE',
      retry: 'slow',
      field: 'reply',
    });
    expect(process.memoryUsage().rss - before).toBeLessThan(100 << 20);
    server.behave('none');
    await expect(issue(ca)).resolves.toBeDefined();
  });
});

describe('a call that ends well', () => {
  const well = (...messages: readonly Buffer[]) =>
    byHand(({ stream }) => {
      stream.respond(RESPONSE_HEADERS, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
      stream.end(Buffer.concat(messages));
    });

  test.each<[string, Fault, string]>([
    ['without a reply', well(), 'No response received'],
    ['with two', well(frame(Buffer.alloc(1)), frame(Buffer.alloc(1))), 'Too many responses'],
  ])('C12 %s is none', async (_, fault, words) => {
    const { server, ca } = await world();
    server.behave(fault);
    await expect(issue(ca)).rejects.toMatchObject({
      code: 'ERR_CA_REJECTED',
      retry: 'slow',
      message: expect.stringContaining(words),
    });
  });
});

describe('a CA that is away', () => {
  test('13 37 at the start is found unattended, and its retries are counted', async () => {
    const first = await startFakeIstiod();
    const { port } = first.server;
    const files = new WorkloadFiles().roots(first.signer).token(first.token(TEST_ID));
    await first.close();
    const counted: unknown[] = [];
    const deps = testDeps({ metrics: { record: (name, labels) => counted.push([name, labels]) } });
    const { ca } = await openClient(files, { address: `localhost:${port}` }, deps);
    const rotation = { ratio: 0.5, jitterRatio: 0 };
    const options = {
      ca,
      id,
      engine: directEngine,
      keyAlgorithm: 'ecdsa-p256',
      ttlMs: HOUR_MS,
      rotation,
      warmStart: undefined,
    } as const;
    const keeper = closing(createKeeper(options, deps));
    await until('two failures', async () => keeper.describe().failures >= 2);
    closing(await startFakeIstiod({ signer: first.signer, port, tokens: first.tokens }));
    await until('a certificate', async () => keeper.state.value.kind === 'current');
    expect(counted).toContainEqual(['ca_retries_total', { ca: 'istiod' }]);
  });
});

describe('a server that is not the CA', () => {
  test.each<[string, () => Promise<{ ours: FakeCaOptions }>, string]>([
    [
      'with another name',
      async () => named((ca) => serverPair(ca, ['istiod.istio-system.svc'])),
      "does not match certificate's altnames",
    ],
    [
      'whose certificate has expired',
      async () => named((ca) => serverPair(ca, undefined, { notAfterAt: Date.now() - 1_000 })),
      'expired',
    ],
    [
      'whose certificate is not valid yet',
      async () =>
        named((ca) =>
          serverPair(ca, undefined, {
            notBeforeAt: Date.now() + HOUR_MS,
            notAfterAt: Date.now() + 2 * HOUR_MS,
          }),
        ),
      'not yet valid',
    ],
    [
      'of another root',
      async () => named(async () => serverPair(await liveCa({ name: 'stranger' }))),
      'unable to',
    ],
    [
      'that speaks TLS 1.1 at most',
      async () => ({
        ours: {
          tls: { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' },
        },
      }),
      '',
    ],
  ])('C24 %s gets no token', async (_, make, words) => {
    const { ours } = await make();
    const { server, ca } = await world({}, ours);
    await expect(issue(ca)).rejects.toMatchObject({
      ...SOON,
      message: expect.stringContaining(words),
    });
    expect(server.fake.server.calls).toEqual([]);
  });

  async function named(
    make: (
      ca: Awaited<ReturnType<typeof liveCa>>,
    ) => ReturnType<typeof serverPair> | Promise<ReturnType<typeof serverPair>>,
  ) {
    const signer = await liveCa();
    return { ours: { signer, pair: await make(signer) } };
  }

  test('C24 that does not agree on HTTP/2 gets no token', async () => {
    const { server, ca } = await world();
    server.behave('tls without http/2');
    await expect(issue(ca)).rejects.toMatchObject({
      ...SOON,
      message: expect.stringContaining('does not speak HTTP/2'),
    });
    expect(server.rawBytes().length).toBe(0);
  });

  test('C24 but listens without TLS gets no token', async () => {
    const { server, ca, token } = await world();
    server.behave('no tls');
    await expect(issueWithin(ca)).rejects.toMatchObject({ code: 'ERR_TIMEOUT', retry: 'soon' });
    expect(server.rawBytes().length).toBeGreaterThan(0);
    expect(server.rawBytes().includes(Buffer.from(token))).toBe(false);
  });

  test('C24 may have any name that --ca-server-name gives it, and its address where that is what was asked', async () => {
    const signer = await liveCa();
    const pair = serverPair(signer, ['istiod.istio-system.svc', '127.0.0.1']);
    const { server, ca, files } = await world(
      { serverName: 'istiod.istio-system.svc' },
      { signer, pair },
    );
    await expect(issue(ca)).resolves.toBeDefined();
    const byAddress = await openClient(files, { address: `127.0.0.1:${server.port}` });
    await expect(issue(byAddress.ca)).resolves.toBeDefined();
  });

  test('an address is no server name: none is sent for it', async () => {
    const names: unknown[] = [];
    const sni = (name: string, done: (error: null) => void) => {
      names.push(name);
      done(null);
    };
    const { server, files } = await world({}, { tls: { SNICallback: sni as never } });
    for (const host of ['localhost', '127.0.0.1'])
      await issue((await openClient(files, { address: `${host}:${server.port}` })).ca);
    expect(names).toEqual(['localhost']);
  });

  test('without TLS is spoken to where the channel was told so', async () => {
    const tokens: unknown[] = [];
    const plain = createServer();
    plain.on('stream', (stream, headers) => {
      tokens.push(headers.authorization);
      stream.respond({ ...RESPONSE_HEADERS, 'grpc-status': '14' }, { endStream: true });
    });
    await new Promise<void>((done) => plain.listen(0, '127.0.0.1', done));
    closing({ close: () => new Promise<void>((done) => plain.close(() => done())) });
    const { port } = plain.address() as AddressInfo;
    const address = { host: '127.0.0.1', port };
    const options = { address, serverName: '127.0.0.1', plaintext: true };
    const channel = new CaChannel(options, systemClock);
    const metadata = new Metadata();
    metadata.set('authorization', 'Bearer abc');
    const call = channel.call(
      { root: undefined, certificate: undefined },
      Buffer.alloc(0),
      metadata,
      AbortSignal.timeout(5_000),
    );
    await expect(call).rejects.toMatchObject({ code: status.UNAVAILABLE });
    expect(tokens).toEqual(['Bearer abc']);
    await channel.close();
  });

  test('without TLS is warned of at the start', async () => {
    const { deps } = await openClient(new WorkloadFiles(), {
      address: '127.0.0.1:15010',
      allowPlaintext: true,
    });
    expect(deps.events[0]).toMatchObject({
      level: 'warn',
      event: 'connecting to the CA without TLS, credentials are sent in plaintext',
    });
  });
});

describe('a name in the DNS', () => {
  afterEach(() => {
    jest.restoreAllMocks();
  });

  /** What the name resolves to, in order; it may change between attempts. */
  function resolving(answer: () => Promise<readonly string[]>): void {
    const lookup = async () => (await answer()).map((address) => ({ address, family: 4 }));
    jest.spyOn(dns, 'lookup').mockImplementation(lookup as never);
  }

  test('C26 that does not exist is an outage, until it does', async () => {
    const { server, files } = await world({}, {});
    const { ca } = await openClient(files, {
      address: `ca.test:${server.port}`,
      serverName: 'localhost',
    });
    resolving(async () => {
      throw Object.assign(new Error('getaddrinfo ENOTFOUND ca.test'), { code: 'ENOTFOUND' });
    });
    await expect(issue(ca)).rejects.toMatchObject({
      ...SOON,
      message: expect.stringContaining('ca.test'),
    });
    resolving(async () => ['127.0.0.1']);
    await expect(issue(ca)).resolves.toBeDefined();
  });

  test('C26 that takes half a minute to resolve is left at the deadline', async () => {
    const { server, files } = await world();
    const { ca } = await openClient(files, {
      address: `ca.test:${server.port}`,
      serverName: 'localhost',
    });
    resolving(() => new Promise(() => undefined));
    await expect(issueWithin(ca)).rejects.toMatchObject({ code: 'ERR_TIMEOUT', retry: 'soon' });
  });

  test.each([
    ['refuses', false],
    ['swallows', true],
  ])(
    'C26 whose first address %s every connection is reached by the second, within the deadline',
    async (_, swallows) => {
      const { server, files } = await world();
      const { ca } = await openClient(files, {
        address: `ca.test:${server.port}`,
        serverName: 'localhost',
      });
      if (swallows)
        closing(await startFaultServer({ host: '127.0.0.2', frontPort: server.port })).behave(
          'no tls',
        );
      resolving(async () => ['127.0.0.2', '127.0.0.1']);
      await expect(issueWithin(ca, 5_000)).resolves.toBeDefined();
    },
  );

  test('C26 that changes its address is followed', async () => {
    const { server, files } = await world();
    const moved = closing(
      await startFaultServer({
        host: '127.0.0.2',
        frontPort: server.port,
        signer: server.fake.signer,
        tokens: server.fake.tokens,
      }),
    );
    const { ca } = await openClient(files, {
      address: `ca.test:${server.port}`,
      serverName: 'localhost',
    });
    resolving(async () => ['127.0.0.1']);
    await issue(ca);
    await server.close();
    resolving(async () => ['127.0.0.2']);
    await expect(issueSoon(ca)).resolves.toBeDefined();
    expect(moved.connections()).toBe(1);
  });
});
