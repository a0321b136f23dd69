import { generateKeyPairSync } from 'node:crypto';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { writePem } from '../../agent/base/pem';
import { certificatesPem } from '../../agent/identity/certificate';
import { generateKeyPair, privateKeyPem } from '../../agent/identity/keys';
import { encodeCertificateRequest } from '../../ca-client/istio/wire/messages';
import { CREATE_CERTIFICATE_PATH } from '../../ca-client/istio/wire/service';
import {
  type CaWorld,
  type ClientIdentity,
  issueIdentity,
  makeRequest,
  startCaWorld,
} from '../support/ca-server';
import { HOUR_MS, issueLeaf, makeKey, makeTestCa } from '../support/certs';
import { TestClock } from '../support/test-clock';
import { until } from '../support/until';

const REFUSED_STREAM = 7;
const MINUTE_MS = 60_000;

/** One HTTP/2 connection that shows a certificate, and calls by it that are not sent again. */
function connect({ server, authority }: CaWorld, { key, certificatesDer }: ClientIdentity) {
  const session: ClientHttp2Session = connectHttp2(`https://${server.address}`, {
    servername: 'localhost',
    ca: certificatesPem(authority.trust.value.rootsDer),
    key: privateKeyPem(key, 'pkcs8'),
    cert: certificatesPem(certificatesDer),
  });
  session.on('error', () => undefined);
  const call = async () => {
    const { csrDer } = await makeRequest();
    const request = encodeCertificateRequest({
      csrPem: writePem('CERTIFICATE REQUEST', csrDer).toString(),
      ttlSeconds: 60,
      metadata: new Map(),
    });
    const head = Buffer.alloc(5);
    head.writeUInt32BE(request.length, 1);
    const fields = {
      ':method': 'POST',
      ':path': CREATE_CERTIFICATE_PATH,
      'content-type': 'application/grpc',
      te: 'trailers',
    };
    return new Promise<{ status?: string; reset: number }>((done) => {
      let status: string | undefined;
      const stream = session.request(fields);
      const take = (headers: Readonly<Record<string, unknown>>) => {
        status = (headers['grpc-status'] as string | undefined) ?? status;
      };
      stream.on('response', take).on('trailers', take);
      stream.on('error', () => undefined);
      stream.on('close', () =>
        done({ ...(status !== undefined && { status }), reset: stream.rstCode ?? 0 }),
      );
      stream.resume();
      stream.end(Buffer.concat([head, request]));
    });
  };
  return { session, call, close: () => session.destroy() };
}

describe('a client certificate that ends while its connection is open', () => {
  const setUp = async (ttlSeconds: number) => {
    // Half a second off, for sweeps come by at each second from here and certificates end at whole ones.
    const clock = new TestClock(Math.floor(Date.now() / 1_000) * 1_000 + 500);
    const world = await startCaWorld({ deps: { clock } });
    const identity = await issueIdentity(world.authority, undefined, ttlSeconds);
    return { clock, world, identity };
  };

  test('takes the connection with it: the next call is refused unread, to be made over a new one', async () => {
    const { clock, world, identity } = await setUp(60);
    const client = connect(world, identity);
    expect(await client.call()).toEqual({ status: '0', reset: 0 });
    const newer = await issueIdentity(world.authority);
    await clock.advanceBy(MINUTE_MS - 400);
    const refusals = () => world.audit().filter(({ decision }) => decision === 'refused');
    expect(await client.call()).toEqual({ reset: REFUSED_STREAM });
    await until(
      'the end of the connection',
      async () => client.session.closed || client.session.destroyed,
    );
    // Nobody was told that a credential is not good.
    expect(refusals()).toEqual([]);
    const next = connect(world, newer);
    expect(await next.call()).toEqual({ status: '0', reset: 0 });
    for (const each of [client, next]) each.close();
    await world.close();
  });

  test('also where nothing is asked', async () => {
    const { clock, world, identity } = await setUp(60);
    const client = connect(world, identity);
    expect(await client.call()).toEqual({ status: '0', reset: 0 });
    await clock.advanceBy(MINUTE_MS - 5_000);
    expect(client.session.closed).toBe(false);
    await clock.advanceBy(10_000);
    await until(
      'the end of the connection',
      async () => client.session.closed || client.session.destroyed,
    );
    client.close();
    await world.close();
  });

  test('one that had ended before is refused as such, and its connection stays for a token', async () => {
    const { clock, world, identity } = await setUp(60);
    await clock.advanceBy(2 * MINUTE_MS);
    const client = connect(world, identity);
    expect(await client.call()).toEqual({ status: '16', reset: 0 });
    await clock.advanceBy(10_000);
    expect(client.session.closed).toBe(false);
    client.close();
    await world.close();
  });
});

describe('field E4: a TLS handshake', () => {
  let world: CaWorld;
  beforeAll(async () => {
    world = await startCaWorld();
  });
  afterAll(() => world.close());

  /** A leaf and so many CAs above it, each of a name and a P-521 key of its own. */
  async function chainOf(count: number): Promise<ClientIdentity> {
    const dearKey = () => generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey;
    const key = await generateKeyPair('ecdsa-p256');
    const cas = [await makeTestCa({ privateKey: dearKey() })];
    while (cas.length < count)
      cas.unshift(await makeTestCa({ privateKey: dearKey(), parent: cas[0]! }));
    const leaf = issueLeaf(cas[0]!, { key, notAfterAt: Date.now() + HOUR_MS });
    return { key, certificatesDer: [leaf, ...cas.map(({ certificateDer }) => certificateDer)] };
  }

  const shake = ({ key, certificatesDer }: ClientIdentity) => {
    const [host, port] = world.server.address.split(':');
    const socket = connectTls({
      host: host!,
      port: Number(port),
      servername: 'localhost',
      ALPNProtocols: ['h2'],
      ca: certificatesPem(world.authority.trust.value.rootsDer),
      key: privateKeyPem(key, 'pkcs8'),
      cert: certificatesPem(certificatesDer),
    });
    socket.on('error', () => undefined);
    return socket;
  };

  test('with a long chain of dear certificates is not completed, and costs the authority nothing', async () => {
    const [short, long] = [shake(await chainOf(4)), shake(await chainOf(60))];
    await until(
      'the settings over the one',
      async () => short.bytesRead > 0 && short.readableLength > 0,
    );
    // By TLS 1.3 the client is done before the server looks at its certificates: what shows it are the settings of HTTP/2.
    expect(long.readableLength).toBe(0);
    const agent = connect(world, await issueIdentity(world.authority));
    expect(await agent.call()).toEqual({ status: '0', reset: 0 });
    expect(long.readableLength).toBe(0);
    for (const each of [short, long]) each.destroy();
    agent.close();
  });

  test('with a leaf and three CAs of RSA-4096 is completed', async () => {
    const privateKey = makeKey('rsa', 4_096);
    const key = await generateKeyPair('rsa-4096');
    let ca = await makeTestCa({ privateKey });
    const cas = [ca];
    while (cas.length < 3) {
      ca = await makeTestCa({ privateKey, parent: ca });
      cas.unshift(ca);
    }
    const leaf = issueLeaf(ca, { key, notAfterAt: Date.now() + HOUR_MS });
    const socket = shake({
      key,
      certificatesDer: [leaf, ...cas.map(({ certificateDer }) => certificateDer)],
    });
    await until('the settings', async () => socket.readableLength > 0);
    socket.destroy();
  });

  test('of an agent that comes anew does not wait for those of strangers who show dear certificates', async () => {
    const [dear, own] = [await chainOf(8), await issueIdentity(world.authority)];
    const strangers = Array.from({ length: 30 }, () => shake(dear));
    // By TLS 1.3 their certificates are on their way then.
    await Promise.all(
      strangers.map((each) => new Promise((done) => each.once('secureConnect', done))),
    );
    const agent = shake(own);
    await until('the settings', async () => agent.readableLength > 0);
    const served = strangers.filter(({ readableLength }) => readableLength > 0);
    for (const each of [...strangers, agent]) each.destroy();
    expect(served.length).toBeLessThan(15);
  });
});
