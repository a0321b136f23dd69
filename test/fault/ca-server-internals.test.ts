import { createHash } from 'node:crypto';
import { mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { describe, expect, test } from '@jest/globals';
import { AgentError } from '../../agent/base/errors';
import {
  certificatesPem,
  parseCertificate,
  parseCertificates,
  parseRootBundle,
} from '../../agent/identity/certificate';
import { verifyChain } from '../../agent/identity/chain';
import { parseSpiffeBundle } from '../../agent/identity/spiffe-bundle';
import { but } from '../support/but';
import { writeCaDir } from '../support/ca-dir';
import {
  type CallOutcome,
  type CaWorld,
  type CaWorldOptions,
  issueIdentity,
  makeRequest,
} from '../support/ca-server';
import { HOUR_MS, makeTestCa, TEST_ID } from '../support/certs';
import { underLoad } from '../support/load';
import { tempDir } from '../support/temp-dir';
import { testCaWorld } from '../support/test-ca-world';
import { TestClock } from '../support/test-clock';
import { until } from '../support/until';

const RESOURCE_EXHAUSTED = 8;
const INTERNAL = 13;
const UNAVAILABLE = 14;

/** Whether a reply is whole: its leaf leads by its own intermediates to one of its own roots. */
function leadsToItsRoot({ chain }: CallOutcome): boolean {
  const [leaf, ...between] = chain
    .slice(0, -1)
    .flatMap((pem) => parseCertificates(Buffer.from(pem), 'reply'));
  const { bundle } = parseRootBundle(Buffer.from(chain.at(-1)!), 'roots');
  const roots = bundle.rootsDer.map((der) => parseCertificate(der));
  return verifyChain(leaf!, between, roots, Date.now()).path.length === 1 + between.length;
}

const validNow = { notBeforeAt: Date.now() - HOUR_MS, notAfterAt: Date.now() + 24 * HOUR_MS };

test('B7 while the CA is reloaded again and again, every reply leads from its leaf to its root', async () => {
  const root = await makeTestCa(validNow);
  const signers = await Promise.all(
    ['one', 'two'].map((name) => makeTestCa({ parent: root, name, ...validNow })),
  );
  const dir = join(tempDir(), 'ca');
  writeCaDir(dir, { signer: signers[0]!, roots: [root] });
  const world = await testCaWorld({ dir });
  const client = world.client(await issueIdentity(world.authority));
  const { csrDer } = await makeRequest();
  const outcomes: CallOutcome[] = [];
  let running = true;
  const load = Array.from({ length: 8 }, async () => {
    while (running) outcomes.push(await client.create(csrDer));
  });
  for (let turn = 1; turn <= 6; turn += 1) {
    writeCaDir(dir, { signer: signers[turn % 2]! });
    await until(
      'the reload',
      async () => world.events.filter(({ event }) => event === 'CA signer changed').length >= turn,
    );
  }
  running = false;
  await Promise.all(load);
  expect(outcomes.length).toBeGreaterThan(20);
  expect(outcomes.every((outcome) => outcome.code === 0 && leadsToItsRoot(outcome))).toBe(true);
  expect(new Set(outcomes.map(({ chain }) => chain[1])).size).toBe(2);
});

describe('B8 a signer that fails or is slow', () => {
  test.each([
    ['a fault of ours', new TypeError('cannot read properties of undefined (canary)'), INTERNAL],
    [
      'an expired CA certificate',
      new AgentError('ERR_CA_UNAVAILABLE', 'sign: expired (canary)'),
      UNAVAILABLE,
    ],
  ])('%s gives a status without details, and no part of a chain', async (_, fault, code) => {
    let broken = false;
    const world = await testCaWorld({
      wrapAuthority: (authority) =>
        but(authority, {
          issue: (...args: Parameters<typeof authority.issue>) =>
            broken ? Promise.reject(fault) : authority.issue(...args),
        }),
    });
    const client = world.client(await issueIdentity(world.authority));
    const { csrDer } = await makeRequest();
    broken = true;
    const outcome = await client.create(csrDer);
    expect(outcome).toMatchObject({ code, chain: [] });
    expect(outcome.details).not.toContain('canary');
    expect(world.audit().at(-1)).toMatchObject({
      decision: 'refused',
      reason: expect.stringContaining('canary'),
    });
    broken = false;
    expect(await client.create(csrDer)).toMatchObject({ code: 0 });
  });

  test('one that takes two seconds holds up nobody who asks for something else', async () => {
    let slow = true;
    const world = await testCaWorld({
      wrapAuthority: (authority) =>
        but(authority, {
          issue: async (...args: Parameters<typeof authority.issue>) => {
            if (slow) await new Promise((done) => setTimeout(done, 2_000));
            return authority.issue(...args);
          },
        }),
    });
    const client = world.client(await issueIdentity(world.authority));
    const { csrDer } = await makeRequest();
    const waiting = client.create(csrDer);
    const startedAt = performance.now();
    expect(await world.client().create(csrDer)).toMatchObject({ code: 16 });
    expect(performance.now() - startedAt).toBeLessThan(underLoad(1_000));
    expect(await waiting).toMatchObject({ code: 0 });
    slow = false;
  });
});

test('what cannot be entered into the register is not handed out, and the server says that it is not ready', async () => {
  let broken = false;
  const world = await testCaWorld({
    wrapStore: (store) =>
      but(store, {
        recordIssued: (entry: Parameters<typeof store.recordIssued>[0]) =>
          broken
            ? Promise.reject(
                new AgentError('ERR_CA_STATE', 'write the register: ENOSPC', { retry: 'soon' }),
              )
            : store.recordIssued(entry),
      }),
    http: { address: '127.0.0.1:0' },
  });
  const client = world.client(await issueIdentity(world.authority));
  const { csrDer } = await makeRequest();
  const ready = async () =>
    (await fetch(`http://${world.server.httpAddress}/healthz/ready`)).status;
  expect(await ready()).toBe(200);
  broken = true;
  expect(await client.create(csrDer)).toMatchObject({
    code: UNAVAILABLE,
    details: 'the CA cannot sign now',
    chain: [],
  });
  expect(world.issued()).toBe(0);
  expect(await ready()).toBe(503);
  broken = false;
  expect(await client.create(csrDer)).toMatchObject({ code: 0 });
  await until('readiness', async () => (await ready()) === 200);
});

describe('B10 the audit log', () => {
  test('says of every certificate who got it, for which key and until when; the register agrees', async () => {
    const world = await testCaWorld();
    const { key, csrDer } = await makeRequest();
    const outcome = await world
      .client()
      .create(csrDer, { token: await world.joinToken(), ttlSeconds: 600 });
    const [leaf] = parseCertificates(Buffer.from(outcome.chain[0]!), 'leaf');
    const keySha256 = createHash('sha256').update(key.spkiDer).digest('hex');
    expect(world.audit()).toMatchObject([
      {
        time: expect.stringMatching(/^\d{4}-.*Z$/),
        decision: 'issued',
        caller: TEST_ID,
        method: 'join-token',
        requested: TEST_ID,
        serial: leaf!.serial,
        keySha256,
        notAfter: new Date(leaf!.notAfterAt).toISOString(),
        status: 'OK',
        peer: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
      },
    ]);
    expect(await world.store.issued({ serial: leaf!.serial }, Date.now())).toMatchObject([
      { id: TEST_ID, keySha256, notAfterAt: leaf!.notAfterAt },
    ]);
  });

  test('that cannot be written lets nothing out, is told once, and lets out again when it can', async () => {
    const dir = join(tempDir(), 'log');
    mkdirSync(dir);
    const world = await testCaWorld({ audit: { path: join(dir, 'audit.jsonl') } });
    const client = world.client(await issueIdentity(world.authority));
    const { csrDer } = await makeRequest();
    expect(await client.create(csrDer)).toMatchObject({ code: 0 });
    renameSync(dir, `${dir}.gone`);
    await until('the refusal', async () => (await client.create(csrDer)).code === UNAVAILABLE);
    for (let each = 0; each < 5; each += 1)
      expect(await client.create(csrDer)).toMatchObject({ code: UNAVAILABLE, chain: [] });
    expect(world.server.problems()).toMatchObject([{ code: 'ERR_OUTPUT' }]);
    expect(
      world.events.filter(({ event }) => event.startsWith('audit log write failed')),
    ).toHaveLength(1);
    mkdirSync(dir);
    expect(await client.create(csrDer)).toMatchObject({ code: 0 });
    await until('the end of the trouble', async () => world.server.problems().length === 0);
  });
});

test('B12 a flood of one identity costs the others nothing', async () => {
  const world = await testCaWorld({ rates: { perIdentity: 10, total: 200 } });
  const { csrDer } = await makeRequest();
  const flood = world.client(await issueIdentity(world.authority));
  const others = await Promise.all(
    Array.from({ length: 5 }, async (_, each) => {
      const id = `spiffe://cluster.local/ns/shop/sa/other-${each}`;
      return {
        client: world.client(await issueIdentity(world.authority, id)),
        csrDer: (await makeRequest(id)).csrDer,
      };
    }),
  );
  const flooded = Promise.all(Array.from({ length: 1_000 }, () => flood.create(csrDer)));
  for (let round = 0; round < 3; round += 1) {
    const outcomes = await Promise.all(others.map((other) => other.client.create(other.csrDer)));
    expect(outcomes.map(({ code }) => code)).toEqual([0, 0, 0, 0, 0]);
  }
  const codes = (await flooded).map(({ code }) => code);
  expect(codes.filter((code) => code === RESOURCE_EXHAUSTED).length).toBeGreaterThan(900);
  expect(new Set(codes)).toEqual(new Set([0, RESOURCE_EXHAUSTED]));
});

describe('the server’s own certificate', () => {
  const shown = (world: CaWorld) =>
    new Promise<ReturnType<typeof parseCertificate>>((resolve, reject) => {
      const [host, port] = world.server.address.split(':');
      const ca = certificatesPem(world.authority.trust.value.rootsDer);
      const socket = connect(
        { host: host!, port: Number(port), servername: 'localhost', ca, ALPNProtocols: ['h2'] },
        () => {
          resolve(parseCertificate(socket.getPeerX509Certificate()!.raw));
          socket.destroy();
        },
      );
      socket.on('error', reject);
    });

  test('is for its names and nothing else, and in the register', async () => {
    const world = await testCaWorld({ serverNames: ['ca.example.org', 'localhost'] });
    const leaf = await shown(world);
    expect(leaf).toMatchObject({
      subjectAltName: {
        names: [
          { kind: 'dns', value: 'ca.example.org' },
          { kind: 'dns', value: 'localhost' },
          { kind: 'ip', value: '127.0.0.1' },
        ],
        critical: true,
      },
      extendedKeyUsage: ['1.3.6.1.5.5.7.3.1'],
      basicConstraints: { ca: false },
      keyUsage: { usages: ['digitalSignature'], critical: true },
      publicKey: { text: 'ECDSA P-256' },
    });
    expect(await world.store.issued({ serial: leaf.serial }, Date.now())).toMatchObject([
      { id: 'ca.example.org' },
    ]);
  });

  // TLS goes by the machine's clock, so ours ends where that one is.
  test('is renewed at half of its life with a new key, and connections that are open stay', async () => {
    const clock = new TestClock(Date.now() - 12.2 * HOUR_MS);
    const world = await testCaWorld({ deps: { clock } });
    const first = await shown(world);
    const client = world.client(await issueIdentity(world.authority, TEST_ID, 7 * 24 * 3_600));
    const { csrDer } = await makeRequest();
    expect(await client.create(csrDer)).toMatchObject({ code: 0 });
    const peer = world.audit().at(-1)!.peer;
    const renewed = () =>
      world.events.filter(
        ({ event, facts }) => event === 'certificate signed' && facts.server !== undefined,
      ).length;
    expect(renewed()).toBe(1);
    // In steps, so that the connection is not idle for too long.
    for (let minutes = 0; minutes < 12 * 60 + 4; minutes += 4) {
      await clock.advanceBy(4 * 60_000);
      expect(await client.create(csrDer)).toMatchObject({ code: 0 });
    }
    await until('the renewal', async () => renewed() === 2);
    expect((await shown(world)).publicKey.spkiDer).not.toEqual(first.publicKey.spkiDer);
    expect(await client.create(csrDer)).toMatchObject({ code: 0 });
    expect(world.audit().at(-1)!.peer).toBe(peer);
  });

  test('follows another signer at once', async () => {
    const [old, next] = [
      await makeTestCa(validNow),
      await makeTestCa({ ...validNow, name: 'next' }),
    ];
    const dir = join(tempDir(), 'ca');
    writeCaDir(dir, { signer: old, roots: [old, next] });
    const world = await testCaWorld({ dir });
    expect((await shown(world)).issuerDer).toEqual(old.subjectDer);
    writeCaDir(dir, { signer: next });
    await until(
      'the new certificate',
      async () => Buffer.compare((await shown(world)).issuerDer, next.subjectDer) === 0,
    );
  });
});

test('bundle, CRL, health and metrics are there over HTTP, and nothing else', async () => {
  const world = await testCaWorld({
    http: {
      address: '127.0.0.1:0',
      crl: {
        current: async () => ({
          pem: Buffer.from('-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n'),
          der: Buffer.of(0x30, 0),
        }),
        problem: () => undefined,
      },
      metrics: async () => ({ contentType: 'text/plain; version=0.0.4', body: 'x 1\n' }),
    },
  });
  const get = async (path: string, init?: RequestInit) => {
    const response = await fetch(`http://${world.server.httpAddress}${path}`, init);
    return {
      status: response.status,
      type: response.headers.get('content-type'),
      body: Buffer.from(await response.arrayBuffer()),
    };
  };
  expect((await get('/bundle.pem')).body).toEqual(
    certificatesPem(world.authority.trust.value.rootsDer),
  );
  expect(
    parseSpiffeBundle((await get('/bundle.json')).body, 'cluster.local', 'bundle'),
  ).toMatchObject({
    roots: world.authority.trust.value,
  });
  expect(await get('/crl')).toMatchObject({ status: 200, type: 'application/x-pem-file' });
  expect(await get('/crl.der')).toMatchObject({
    status: 200,
    type: 'application/pkix-crl',
    body: Buffer.of(0x30, 0),
  });
  expect(await get('/healthz/ready')).toMatchObject({ status: 200 });
  expect(await get('/healthz/live')).toMatchObject({ status: 200 });
  expect(await get('/metrics')).toMatchObject({ status: 200, body: Buffer.from('x 1\n') });
  expect(await get('/ca-key.pem')).toMatchObject({ status: 404 });
  expect(await get('/constructor')).toMatchObject({ status: 404 });
  expect(await get('/bundle.pem', { method: 'POST', body: 'x' })).toMatchObject({ status: 405 });
  expect(await get('/bundle.pem', { method: 'HEAD' })).toMatchObject({
    status: 200,
    body: Buffer.alloc(0),
  });
});

test.each<[string, Partial<CaWorldOptions>, string]>([
  ['no authenticator', { authenticators: [] }, '--authenticators'],
  ['oidc without keys', { authenticators: ['oidc'] }, '--authenticators'],
  [
    'token-review without a Kubernetes API',
    { authenticators: ['token-review'] },
    '--authenticators',
  ],
  ['a name that is none', { serverNames: ['a b'] }, '--server-names'],
  ['every address and no name', { listen: '0.0.0.0:0', serverNames: [] }, '--server-names'],
  ['an address that is none', { listen: 'nowhere' }, '--listen'],
])('a server with %s does not start', async (_, options, field) => {
  await expect(testCaWorld(options)).rejects.toMatchObject({ code: 'ERR_CONFIG', field });
});

test('a port that is taken is told', async () => {
  const world = await testCaWorld();
  await expect(testCaWorld({ listen: world.server.address })).rejects.toMatchObject({
    code: 'ERR_SOCKET',
    message: expect.stringContaining('the address is in use'),
  });
});
