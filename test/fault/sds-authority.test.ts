import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { X509SVIDResponse } from '../../sds/proto/generated/workload';
import { type Daemon, startDaemon } from '../support/daemon';
import { parseExposition } from '../support/exposition';
import {
  END_HEADERS,
  END_STREAM,
  frame,
  headerBlock,
  message,
  PREFACE,
  type RawClient,
  rawConnect,
} from '../support/raw-http2';
import { sotwRequest } from '../support/sds-client';
import { expectWell } from '../support/sds-daemon';
import { until } from '../support/until';

let dir: string;
let daemon: Daemon;
const clients: RawClient[] = [];

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'keyturn-sds-'));
  daemon = startDaemon({ dir });
  await daemon.ready();
});
afterAll(async () => {
  for (const each of clients) each.destroy();
  await expectWell(daemon);
  await daemon.stop();
  rmSync(dir, { recursive: true, force: true });
});

type Fields = readonly (readonly [string, string])[];

const SDS = '/envoy.service.secret.v3.SecretDiscoveryService';
const WORKLOAD = '/SpiffeWorkloadAPI';
const SECURITY: Fields = [['workload.spiffe.io', 'true']];

function call(path: string, authority: string | undefined, more: Fields = []): Fields {
  const pseudo: Fields = [
    [':method', 'POST'],
    [':scheme', 'http'],
    [':path', path],
    ...(authority === undefined ? [] : ([[':authority', authority]] as const)),
  ];
  return [...pseudo, ['te', 'trailers'], ['content-type', 'application/grpc'], ...more];
}

async function sent(fields: Fields, request: Uint8Array): Promise<RawClient> {
  const client = await rawConnect(daemon.sdsSocket);
  clients.push(client);
  client.send(
    PREFACE,
    frame('headers', 1, headerBlock(fields), END_HEADERS),
    message(1, request, { flags: END_STREAM }),
  );
  await until('an answer', async () => client.dataBytes(1) > 0 || client.ended(1), 10_000, 5);
  return client;
}

const refusals = async (reason: string): Promise<number> => {
  const family = parseExposition((await daemon.http('/metrics')).body).get(
    'keyturn_sds_refused_total',
  );
  return family?.samples.find(({ labels }) => labels.reason === reason)?.value ?? 0;
};

describe('field B1: any :authority is served', () => {
  test.each<[string, string | undefined]>([
    ['localhost', 'localhost'],
    ['the path of the socket (grpc-java)', '/run/spire/sockets/agent.sock'],
    ['a URI of it', 'unix:///run/x.sock'],
    ['a relative path', 'a/b'],
    ['an @ (an abstract socket)', '@keyturn'],
    ['a user', 'user@host'],
    ['nothing', ''],
    ['none at all', undefined],
    ['an address', '[::]:0'],
    ['percent-encoding', '%2Frun%2Fx.sock'],
    ['a broken percent-encoding', '%zz'],
    ['a space', 'a b'],
    ['a path of 4 kB', `/${'x'.repeat(4_095)}`],
    ['UTF-8', Buffer.from('/run/schlüssel.sock').toString('latin1')],
  ])('%s', async (_what, authority) => {
    const svid = await sent(
      call(`${WORKLOAD}/FetchX509SVID`, authority, SECURITY),
      new Uint8Array(),
    );
    expect(svid.dataBytes(1)).toBeGreaterThan(500);
    const secret = await sent(call(`${SDS}/FetchSecrets`, authority), sotwRequest(['default']));
    expect(secret.dataBytes(1)).toBeGreaterThan(500);
  });

  test.each(['/run/x.sock', '', undefined])(
    '%p gets no SVID without the header',
    async (authority) => {
      const svid = await sent(call(`${WORKLOAD}/FetchX509SVID`, authority), new Uint8Array());
      expect([svid.dataBytes(1), svid.resetWith(1)]).toEqual([0, undefined]);
    },
  );

  test('a client of gRPC that puts a path there gets its SVID', async () => {
    const client = new Client(`unix:${daemon.sdsSocket}`, credentials.createInsecure(), {
      'grpc.default_authority': daemon.sdsSocket,
    });
    const metadata = new Metadata();
    metadata.set('workload.spiffe.io', 'true');
    const stream = client.makeServerStreamRequest(
      `${WORKLOAD}/FetchX509SVID`,
      Buffer.from,
      (bytes) => X509SVIDResponse.decode(bytes),
      Buffer.alloc(0),
      metadata,
    );
    const answer = await new Promise<X509SVIDResponse>((done, failed) =>
      stream.on('data', done).on('error', failed),
    );
    expect(answer.svids[0]!.spiffeId).toBe('spiffe://cluster.local/ns/shop/sa/cart');
    stream.removeAllListeners('error').on('error', () => undefined);
    stream.cancel();
    client.close();
  });
});

describe('field B1: a stream that is reset for its headers is counted and logged', () => {
  const good = call(`${SDS}/FetchSecrets`, 'x');
  test.each<[string, Fields]>([
    ['header names must be lower-case tokens', [...good, ['X-Big', '1']]],
    ['header values must not hold line ends or NUL', [...good, ['x', 'a\r\nb']]],
    ['pseudo-headers must come first', [...good, [':scheme', 'http']]],
    [':path must be given once', [[':path', '/'], ...good]],
    [':method, :scheme and :path must be there', good.slice(1)],
    ['a pseudo-header must be one of requests', [[':status', '200'], ...good]],
    ['the header connection must not be there', [...good, ['connection', 'close']]],
  ])('%s', async (rule, fields) => {
    const before = await refusals('http2-stream');
    const client = await rawConnect(daemon.sdsSocket);
    clients.push(client);
    const block = headerBlock(fields);
    client.send(
      PREFACE,
      frame('headers', 1, block.subarray(0, 16_000), block.length <= 16_000 ? END_HEADERS : 0),
    );
    for (let at = 16_000; at < block.length; at += 16_000) {
      client.send(
        frame(
          'continuation',
          1,
          block.subarray(at, at + 16_000),
          at + 16_000 < block.length ? 0 : END_HEADERS,
        ),
      );
    }
    await until('the reset', async () => client.resetWith(1) !== undefined, 10_000, 5);
    await daemon.event(
      'sds client refused',
      (event) => event.reason === 'http2-stream' && event.rule === rule,
    );
    expect(await refusals('http2-stream')).toBe(before + 1);
    // Its connection is none the worse for it.
    client.send(
      frame('headers', 3, headerBlock(good), END_HEADERS),
      message(3, sotwRequest(['default']), { flags: END_STREAM }),
    );
    await until('an answer', async () => client.dataBytes(3) > 0, 10_000, 5);
  });

  test('a storm of them costs counts, not lines', async () => {
    const before = await refusals('http2-stream');
    const client = await rawConnect(daemon.sdsSocket);
    clients.push(client);
    const bad = headerBlock([...good, ['X', '1']]);
    client.send(
      PREFACE,
      ...[...Array(300)].map((_, index) => frame('headers', index * 2 + 1, bad, END_HEADERS)),
    );
    await until('the last reset', async () => client.resetWith(599) !== undefined, 10_000, 5);
    expect(await refusals('http2-stream')).toBe(before + 300);
    expect(daemon.events.filter(({ event }) => event === 'sds client refused').length).toBeLessThan(
      50,
    );
  });
});
