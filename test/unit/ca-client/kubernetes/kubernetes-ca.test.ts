import { writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { systemClock, withDeadline } from '../../../../agent/base/clock';
import { certificatesPem } from '../../../../agent/identity/certificate';
import { directEngine } from '../../../../agent/identity/direct-engine';
import { parseSpiffeId } from '../../../../agent/identity/spiffe-id';
import { createKubeApi } from '../../../../agent/kube/kube-api';
import { loadKubeConfig } from '../../../../agent/kube/kube-config';
import { createKubernetesCa } from '../../../../ca-client/kubernetes/kubernetes-ca';
import { issueLeaf, makeTestCa, TEST_ID } from '../../../support/certs';
import { startHttpsServer } from '../../../support/https-server';
import { underLoad } from '../../../support/load';
import { tempDir } from '../../../support/temp-dir';
import { testDeps } from '../../../support/test-deps';
import { until } from '../../../support/until';

const id = parseSpiffeId(TEST_ID);
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const NAME = 'keyturn-abcde';
const object = (status: object = {}, resourceVersion = '7') => ({
  metadata: { name: NAME, uid: 'u', resourceVersion },
  spec: { request: '', signerName: 'example.com/mesh' },
  status,
});
const issued = (pem: Uint8Array | string) => ({ certificate: Buffer.from(pem).toString('base64') });
const approved = { conditions: [{ type: 'Approved', status: 'True' }] };
const event = (type: string, value: object) => `${JSON.stringify({ type, object: value })}\n`;

type Behaviour = (response: ServerResponse, count: number) => void;

/** An API server that does as it is told, in ways that a real one does only on bad days. */
async function world(api: {
  create?: Behaviour;
  watch?: Behaviour;
  get?: Behaviour;
  remove?: Behaviour;
  body?: (text: string) => void;
}) {
  const counts: Record<string, number> = {};
  const seen: string[] = [];
  const ok = (response: ServerResponse, value: object) =>
    response.writeHead(200).end(JSON.stringify(value));
  const behaviours: Record<string, Behaviour> = {
    create: api.create ?? ((response) => ok(response, object())),
    watch: api.watch ?? ((response) => response.writeHead(200).flushHeaders()),
    get: api.get ?? ((response) => ok(response, object())),
    delete: api.remove ?? ((response) => ok(response, {})),
  };
  const server = await startHttpsServer((request: IncomingMessage, response) => {
    const kind =
      request.method === 'POST'
        ? 'create'
        : request.method === 'DELETE'
          ? 'delete'
          : request.url!.includes('watch=')
            ? 'watch'
            : 'get';
    seen.push(`${kind} ${/resourceVersion=(\d+)/.exec(request.url!)?.[1] ?? ''}`.trim());
    counts[kind] = (counts[kind] ?? 0) + 1;
    const chunks: Buffer[] = [];
    request
      .on('data', (chunk: Buffer) => chunks.push(chunk))
      .on('end', () => {
        if (kind === 'create') api.body?.(Buffer.concat(chunks).toString());
        behaviours[kind]!(response, counts[kind]!);
      });
  });
  closers.push(server.close);
  const dir = tempDir();
  const ca = await makeTestCa();
  const trustBundle = join(dir, 'roots.pem');
  writeFileSync(trustBundle, certificatesPem(ca.bundle.rootsDer));
  writeFileSync(join(dir, 'ca.crt'), server.caPem);
  const kubeconfig = join(dir, 'kubeconfig');
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      'current-context': 'x',
      contexts: [{ name: 'x', context: { cluster: 'x', user: 'x' } }],
      clusters: [{ name: 'x', cluster: { server: server.url, 'certificate-authority': 'ca.crt' } }],
      users: [{ name: 'x', user: { token: 'token' } }],
    }),
  );
  const deps = testDeps();
  const kube = createKubeApi(await loadKubeConfig({ kubeconfig, env: {} }, deps), deps);
  const client = await createKubernetesCa(
    { api: kube, signerName: 'example.com/mesh', usages: 'by-key', trustBundle, namespace: 'shop' },
    deps,
  );
  closers.push(async () => {
    await client.close();
    await kube.close();
  });
  const key = await directEngine.generateKeyPair('ecdsa-p256');
  const csrDer = await directEngine.createCsr(key, id);
  const leafDer = issueLeaf(ca, { key });
  return {
    seen,
    leafDer,
    leafPem: certificatesPem([leafDer]),
    sign: (signal = AbortSignal.timeout(10_000)) =>
      client.sign({ id, csrDer, ttlSeconds: 3_600 }, signal),
    /** Under a deadline, as the owner of an attempt keeps it. */
    signWithin: (ms: number, request = csrDer) =>
      withDeadline(systemClock, ms, 'sign', undefined, (signal) =>
        client.sign({ id, csrDer: request, ttlSeconds: 3_600 }, signal),
      ),
    client,
  };
}

describe('C27 a request to a Kubernetes signer, when the API server has a bad day', () => {
  test('is looked at again when its watch is closed', async () => {
    let leafPem: Buffer;
    const { sign, seen, ...made } = await world({
      watch: (response, count) => {
        if (count < 3) response.writeHead(200).end();
        else response.writeHead(200).write(event('MODIFIED', object(issued(leafPem))));
      },
      get: (response, count) =>
        response.writeHead(200).end(JSON.stringify(object({}, String(7 + count)))),
    });
    leafPem = made.leafPem;
    expect((await sign()).certificatesDer.map((der) => Buffer.from(der))).toEqual([
      Buffer.from(made.leafDer),
    ]);
    expect(seen.slice(0, 6)).toEqual(['create', 'watch 7', 'get', 'watch 8', 'get', 'watch 9']);
  });

  test('that was answered between the end of one watch and the next is found by that look', async () => {
    let leafPem: Buffer;
    const { sign, ...made } = await world({
      watch: (response) => response.writeHead(200).end(),
      get: (response) => response.writeHead(200).end(JSON.stringify(object(issued(leafPem)))),
    });
    leafPem = made.leafPem;
    await expect(sign()).resolves.toBeDefined();
  });

  test.each<[string, Behaviour]>([
    [
      'says 410 Gone',
      (response) =>
        response
          .writeHead(200)
          .end(event('ERROR', { code: 410, reason: 'Expired', message: 'too old' })),
    ],
    ['answers 410', (response) => response.writeHead(410).end('{}')],
    ['answers 429', (response) => response.writeHead(429).end('{}')],
    ['answers 500', (response) => response.writeHead(500).end('{}')],
    ['answers garbage', (response) => response.writeHead(200).end('<html>\n')],
    [
      'breaks off',
      (response) => {
        response.writeHead(200).write('{"type":');
        setTimeout(() => response.socket?.destroy(), 20);
      },
    ],
  ])('waits on when its watch %s', async (_, behave) => {
    let leafPem: Buffer;
    const { sign, ...made } = await world({
      watch: (response, count) => {
        if (count === 1) behave(response, count);
        else response.writeHead(200).write(event('MODIFIED', object(issued(leafPem))));
      },
    });
    leafPem = made.leafPem;
    await expect(sign()).resolves.toBeDefined();
  });

  test('field: that is not answered in time is waited for again by the next attempt, and no second one is made', async () => {
    let leafPem: Buffer | undefined;
    const { signWithin, seen, ...made } = await world({
      watch: (response) => {
        if (leafPem) response.writeHead(200).write(event('MODIFIED', object(issued(leafPem))));
        else response.writeHead(200).flushHeaders();
      },
    });
    for (const _ of ['first', 'second'])
      await expect(signWithin(300)).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    leafPem = made.leafPem;
    await expect(signWithin(10_000)).resolves.toBeDefined();
    await until('the removal', async () => seen.includes('delete'));
    expect(seen).toEqual(['create', 'watch 7', 'watch 7', 'watch 7', 'delete']);
  });

  test('that was not answered in time is removed by the next request, and by the end of the client', async () => {
    const { signWithin, seen, client } = await world({});
    await expect(signWithin(300)).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    const other = await directEngine.createCsr(
      await directEngine.generateKeyPair('ecdsa-p256'),
      id,
    );
    await expect(signWithin(300, other)).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    const removed = (count: number) => async () =>
      seen.filter((each) => each === 'delete').length === count;
    await until('the removal of the first', removed(1));
    await client.close();
    await until('the removal of the second', removed(2));
  });

  test('whose making was cut off is found again under its name', async () => {
    let body = '';
    const { sign, ...made } = await world({
      create: (response, count) => {
        if (count === 1) response.socket?.destroy();
        else response.writeHead(409).end(JSON.stringify({ reason: 'AlreadyExists' }));
      },
      get: (response) =>
        response
          .writeHead(200)
          .end(JSON.stringify({ ...object(issued(made.leafPem)), spec: JSON.parse(body).spec })),
      body: (text) => (body = text),
    });
    await expect(sign()).rejects.toMatchObject({ code: 'ERR_CA_UNAVAILABLE' });
    await expect(sign()).resolves.toBeDefined();
  });

  test('that is approved but holds an empty certificate has not been answered', async () => {
    const { sign } = await world({
      watch: (response) =>
        response.writeHead(200).write(event('MODIFIED', object({ ...approved, certificate: '' }))),
    });
    await expect(sign(AbortSignal.timeout(300))).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  test.each([
    ['garbage', 'garbage'],
    ['a key', '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n'],
    ['half a certificate', '-----BEGIN CERTIFICATE-----\nMIIB'],
  ])('C9 that is answered by %s is refused', async (_, pem) => {
    const { sign } = await world({
      watch: (response) =>
        response.writeHead(200).write(event('MODIFIED', object({ ...approved, ...issued(pem) }))),
    });
    await expect(sign()).rejects.toMatchObject({
      code: 'ERR_CA_RESPONSE',
      retry: 'slow',
      message: expect.stringContaining(NAME),
    });
  });

  test.each<[string, object]>([
    [
      'Denied',
      {
        conditions: [{ type: 'Denied', status: 'True', reason: 'R', message: 'm' }],
        ...issued('whatever'),
      },
    ],
    [
      'Approved and Failed',
      {
        conditions: [
          ...approved.conditions,
          { type: 'Failed', status: 'True', reason: 'R', message: 'm' },
        ],
      },
    ],
  ])('that is %s is refused, whatever else it holds', async (_, status) => {
    const { sign } = await world({
      watch: (response) => response.writeHead(200).write(event('MODIFIED', object(status))),
    });
    await expect(sign()).rejects.toMatchObject({
      code: 'ERR_CA_REJECTED',
      retry: 'slow',
      message: expect.stringMatching(/: (denied|failed): R: m$/),
    });
  });

  test('that is gone when it is looked at again is asked for anew', async () => {
    const { sign } = await world({
      watch: (response) => response.writeHead(200).end(),
      get: (response) => response.writeHead(404).end(JSON.stringify({ reason: 'NotFound' })),
    });
    await expect(sign()).rejects.toMatchObject({
      code: 'ERR_CA_REJECTED',
      retry: 'soon',
      message: expect.stringContaining('was deleted'),
    });
  });

  test.each<[number, object, object]>([
    [401, {}, { code: 'ERR_TOKEN', retry: 'slow', status: 401 }],
    [
      403,
      { message: 'not you' },
      { code: 'ERR_CA_REJECTED', retry: 'slow', message: expect.stringContaining('not you') },
    ],
    [
      409,
      { reason: 'AlreadyExists' },
      { code: 'ERR_CA_REJECTED', retry: 'soon', reason: 'AlreadyExists' },
    ],
    [
      422,
      { message: 'spec.signerName: bad' },
      {
        code: 'ERR_CA_REJECTED',
        retry: 'slow',
        message: expect.stringContaining('spec.signerName: bad'),
      },
    ],
    [
      429,
      { details: { retryAfterSeconds: 9 } },
      { code: 'ERR_CA_UNAVAILABLE', retry: 'soon', retryAfterMs: 9_000 },
    ],
    [503, {}, { code: 'ERR_CA_UNAVAILABLE', retry: 'soon' }],
  ])('is not made where the answer is %i', async (status, body, want) => {
    const { sign, seen } = await world({
      create: (response) => response.writeHead(status).end(JSON.stringify(body)),
    });
    await expect(sign()).rejects.toMatchObject(want);
    expect(seen.filter((each) => each === 'delete')).toEqual([]);
  });

  test('is left behind where removing it takes longer than there is time to close', async () => {
    const { sign, seen, client } = await world({
      watch: (response) =>
        response
          .writeHead(200)
          .write(event('MODIFIED', object({ conditions: [{ type: 'Denied', status: 'True' }] }))),
      remove: () => undefined,
    });
    await expect(sign()).rejects.toMatchObject({ code: 'ERR_CA_REJECTED' });
    await until('the removal', async () => seen.includes('delete'));
    const startedAt = Date.now();
    await client.close();
    expect(Date.now() - startedAt).toBeLessThan(underLoad(700));
  });

  test('is removed when nobody waits for it any more, before the client has closed', async () => {
    const { sign, seen, client } = await world({});
    const giveUp = new AbortController();
    const waiting = sign(giveUp.signal);
    await until('the watch', async () => seen.includes('watch 7'));
    giveUp.abort();
    await expect(waiting).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await client.close();
    expect(seen.at(-1)).toBe('delete');
  });
});
