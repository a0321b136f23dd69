import { createServer, get, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect } from '@jest/globals';
import { type BootstrapOptions, createBootstrap } from '../../agent/envoy/bootstrap';
import { KEY_ALGORITHMS } from '../../agent/identity/keys';
import { type Envoy, startEnvoy } from '../support/envoy';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';

const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const FREE = { host: '127.0.0.1', port: 0 };

const envoys: Envoy[] = [];
const servers: Server[] = [];
afterEach(async () => {
  for (const envoy of envoys.splice(0)) await envoy.stop();
  for (const server of servers.splice(0)) server.close();
});

async function start(
  dir: string,
  name: string,
  options: Omit<BootstrapOptions, 'admin' | 'trustDomain'>,
): Promise<Envoy> {
  const envoy = await startEnvoy({
    dir,
    name,
    config: createBootstrap({ ...options, trustDomain: 'cluster.local', admin: FREE }),
  });
  envoys.push(envoy);
  return envoy;
}

/** The port on which our application calls a peer, once somebody listens there. */
async function outboundPort(envoy: Envoy): Promise<number> {
  await envoy.started();
  return envoy.port('outbound');
}

/** An application that answers with what its proxy told it about the caller. */
async function application(): Promise<number> {
  const server = createServer((request, response) =>
    response.end(String(request.headers['x-forwarded-client-cert'])),
  );
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

function ask(
  port: number,
): Promise<{ readonly status: number | undefined; readonly body: string }> {
  return new Promise((resolve, reject) => {
    const headers = { 'x-forwarded-client-cert': 'URI=spiffe://cluster.local/forged' };
    get({ host: '127.0.0.1', port, headers, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => {
        body += text;
      });
      response.on('end', () => resolve({ status: response.statusCode, body }));
    }).on('error', reject);
  });
}

testWith('envoy')(
  'Envoys with our bootstrap take each other whatever the keys of their certificates',
  async () => {
    for (const algorithm of KEY_ALGORITHMS) {
      const dir = tempDir();
      const { sdsSocket } = testDaemon({ dir, flags: ['--key-algorithm', algorithm] });
      const inbound = { listen: FREE, upstream: { host: '127.0.0.1', port: await application() } };
      const server = await start(dir, 'server', { sdsSocket, inbound });
      const peer = { host: '127.0.0.1', port: await server.port('inbound') };
      const caller = await start(dir, 'caller', { sdsSocket, outbound: { listen: FREE, peer } });
      const port = await outboundPort(caller);
      await until(`an answer with ${algorithm}`, async () => (await ask(port)).status === 200);
    }
  },
);

testWith('envoy')(
  'two Envoys with our bootstrap speak mutual TLS, know each other by SPIFFE ID and let in nobody else',
  async () => {
    const dir = tempDir();
    const daemon = testDaemon({ dir });
    const sdsSocket = daemon.sdsSocket;
    const upstream = { host: '127.0.0.1', port: await application() };
    const peer = async (envoy: Envoy) => ({ host: '127.0.0.1', port: await envoy.port('inbound') });
    const inbound = { listen: FREE, upstream };

    const open = await start(dir, 'open', { sdsSocket, inbound });
    const strict = await start(dir, 'strict', {
      sdsSocket,
      inbound: { ...inbound, callers: ['spiffe://cluster.local/ns/shop/sa/pay'] },
    });
    const caller = await start(dir, 'caller', {
      sdsSocket,
      sessionResumption: false,
      outbound: { listen: FREE, peer: await peer(open), peerId: CART, requestsPerConnection: 1 },
    });
    const port = await outboundPort(caller);
    const first = await until(
      'an answer through both',
      async () => (await ask(port)).status === 200 && ask(port),
    );
    expect(first.body.replace(/Hash=[0-9a-f]{64};/, '')).toBe(`By=${CART};URI=${CART}`);

    const before = await open.sum(/^listener\..*\.ssl\.handshake$/);
    for (let request = 0; request < 10; request += 1) expect((await ask(port)).status).toBe(200);
    expect((await open.sum(/^listener\..*\.ssl\.handshake$/)) - before).toBe(10);
    expect(await open.sum(/^listener\..*\.ssl\.session_reused$/)).toBe(0);

    const refused = await start(dir, 'refused', {
      sdsSocket,
      outbound: { listen: FREE, peer: await peer(strict), peerId: CART },
    });
    const doubting = await start(dir, 'doubting', {
      sdsSocket,
      outbound: {
        listen: FREE,
        peer: await peer(open),
        peerId: 'spiffe://cluster.local/ns/shop/sa/pay',
      },
    });
    expect((await ask(await outboundPort(refused))).status).toBe(503);
    await until(
      'the refusal',
      async () => (await strict.sum(/^listener\..*\.ssl\.fail_verify_san$/)) > 0,
    );
    expect((await ask(await outboundPort(doubting))).status).toBe(503);
    await until(
      'the doubt',
      async () => (await doubting.sum(/^cluster\.peer\.ssl\.fail_verify_san$/)) > 0,
    );
    expect((await daemon.stop()).code).toBe(0);
  },
);
