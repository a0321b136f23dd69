import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { certificatesPem } from '../../agent/identity/certificate';
import { privateKeyPem } from '../../agent/identity/keys';
import { LIMITS } from '../../sds/grpc/limits';
import { writeCaDir } from '../support/ca-dir';
import { type Daemon, startDaemon } from '../support/daemon';
import { createSdsClient, type SdsClient, sotwRequest } from '../support/sds-client';
import { expectWell, leafSerial, openStreams, PushOracle, rotate } from '../support/sds-daemon';
import { issueCa, issueSvid } from '../support/sds-world';
import { until } from '../support/until';

const FULL = process.env.KEYTURN_TEST === 'full';

let dir: string;
let daemon: Daemon;
let clients: SdsClient[] = [];

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'keyturn-sds-'));
  daemon = startDaemon({ dir });
  await daemon.ready();
});
afterEach(async () => {
  for (const each of clients) each.close();
  clients = [];
  await expectWell(daemon);
});
afterAll(async () => {
  await daemon.stop();
  rmSync(dir, { recursive: true, force: true });
});

function client(of: Daemon = daemon): SdsClient {
  const made = createSdsClient(of.sdsSocket);
  clients.push(made);
  return made;
}

test('D1 an unknown name yields nobody a secret, kills no stream, and is logged once and shown', async () => {
  const stream = client().openStream();
  const names = [
    'not-a-name',
    'file-cert:only-one-part',
    'file-root:a~b',
    'kubernetes://secret',
    'Default',
    'default ',
  ];
  stream.request(names);
  await stream.silence();
  stream.request([...names, 'default']);
  expect((await stream.next()).names).toEqual(['default']);
  const delta = client().openDelta();
  delta.request({ subscribe: names });
  expect((await delta.next()).removed).toEqual(names);
  await expect(client().fetch(names)).rejects.toMatchObject({ code: status.NOT_FOUND });
  const lines = daemon.events.filter(
    ({ event, name }) => event === 'unknown secret requested' && name === 'not-a-name',
  );
  expect(lines).toHaveLength(1);
  const { unknownNames } = (await daemon.status()).workloads[0]!.sds;
  expect(unknownNames.map(({ name }) => name)).toEqual(expect.arrayContaining(names));
});

test('D2 a wrong type ends its stream with a reason, and no names at all are silence', async () => {
  const wrong = client().openStream();
  wrong.request(['default'], { typeUrl: 'type.googleapis.com/envoy.config.listener.v3.Listener' });
  expect(await wrong.ended).toMatchObject({
    code: status.INVALID_ARGUMENT,
    details: expect.stringContaining('type_url'),
  });
  const none = client().openStream();
  none.request([]);
  await none.silence();
});

test.each([
  [
    '10,000 names',
    sotwRequest([...Array(10_000)].map((_, index) => `name-${index}`)),
    status.INVALID_ARGUMENT,
  ],
  ['a name of 100 KB', sotwRequest(['n'.repeat(100_000)]), status.INVALID_ARGUMENT],
  ['a name of 1 MiB', sotwRequest(['n'.repeat(1_048_576)]), status.RESOURCE_EXHAUSTED],
  [
    'a version of 1 MiB',
    sotwRequest(['default'], { version: 'v'.repeat(1_048_576) }),
    status.RESOURCE_EXHAUSTED,
  ],
])('D2 a request with %s ends its stream and nothing else', async (_what, bytes, code) => {
  const beside = client().openStream();
  beside.request(['default']);
  await beside.next();
  const stream = client().openStream();
  stream.send(bytes);
  expect((await stream.ended).code).toBe(code);
  await beside.silence(20);
});

test('D3 a stale nonce on the same stream is ignored', async () => {
  const stream = client().openStream();
  stream.request(['default']);
  const { nonce } = await stream.next();
  stream.ack();
  await rotate(daemon);
  await stream.next();
  stream.request(['default', 'ROOTCA'], { nonce });
  await stream.silence();
  stream.ack();
  stream.request(['default', 'ROOTCA']);
  expect((await stream.next()).names).toEqual(['ROOTCA']);
});

test('D4 the first request after a restart of the agent, with the old nonce and version, is answered', async () => {
  const own = mkdtempSync(join(tmpdir(), 'keyturn-sds-'));
  let agent = startDaemon({ dir: own });
  await agent.ready();
  const before = client(agent).openStream();
  before.request(['default']);
  const { nonce, version } = await before.next();
  await agent.kill('SIGKILL');
  agent = startDaemon({ dir: own });
  await agent.ready();
  const after = client(agent).openStream();
  after.request(['default'], { nonce, version });
  expect((await after.next()).names).toEqual(['default']);
  await agent.stop();
  rmSync(own, { recursive: true });
});

test('D5 a NACK is logged with its words and counted, not answered, and the next different secret is pushed', async () => {
  const stream = client().openStream();
  stream.request(['default']);
  await stream.next();
  stream.nack('Failed to load private key: mismatch');
  await stream.silence();
  await daemon.event(
    'secret rejected by client (NACK)',
    ({ message }) => message === 'Failed to load private key: mismatch',
  );
  const { body } = await daemon.http('/metrics');
  expect(body).toMatch(/^keyturn_sds_nacks_total\{name="default"\} [1-9]/m);
  const serial = await rotate(daemon);
  expect(leafSerial((await stream.next()).secrets[0]!.chainPem)).toBe(serial);
});

test('D6 a storm of NACKs is answered by nothing and logged by a line', async () => {
  const stream = client().openStream();
  stream.request(['default']);
  await stream.next();
  const lines = () => daemon.events.filter(({ message }) => message === 'storm').length;
  for (let times = 0; times < (FULL ? 60_000 : 3_000); times += 1) {
    stream.nack('storm');
    if (times % 100 === 0) await new Promise((done) => setTimeout(done, FULL ? 100 : 20));
  }
  await stream.silence();
  expect(lines()).toBe(1);
  const serial = await rotate(daemon);
  expect(leafSerial((await stream.next()).secrets[0]!.chainPem)).toBe(serial);
});

test('D7 a NACK that changes the names is served the new ones', async () => {
  const stream = client().openStream();
  stream.request(['default']);
  await stream.next();
  stream.nack('no', ['default', 'ROOTCA']);
  expect((await stream.next()).names).toEqual(['ROOTCA']);
});

test('D8 names are added, removed and doubled in the middle of a stream', async () => {
  const stream = client().openStream();
  stream.request(['default', 'default']);
  expect((await stream.next()).names).toEqual(['default']);
  stream.request(['default', 'ROOTCA', 'ROOTCA']);
  expect((await stream.next()).names).toEqual(['ROOTCA']);
  stream.request(['ROOTCA']);
  await stream.silence(50);
  await rotate(daemon);
  await stream.silence();
});

test('D9, D10 requests before the first certificate wait without an error, and are answered when it comes', async () => {
  const own = mkdtempSync(join(tmpdir(), 'keyturn-sds-'));
  const agent = startDaemon({ dir: own, source: ['--ca', 'file', '--credentials-dir', 'mounted'] });
  await agent.event('sds listening');
  const stream = client(agent).openStream();
  stream.request(['default', 'ROOTCA']);
  const delta = client(agent).openDelta();
  delta.request({ subscribe: ['default'] });
  const fetching = client(agent).fetch(['default']);
  await stream.silence(300);
  await delta.silence(10);
  const svid = await issueSvid(await issueCa());
  const mounted = join(own, 'mounted');
  mkdirSync(mounted, { recursive: true });
  writeFileSync(join(mounted, 'key.pem'), privateKeyPem(svid.key, 'pkcs8'), { mode: 0o600 });
  writeFileSync(join(mounted, 'root-cert.pem'), certificatesPem(svid.bundle.rootsDer));
  writeFileSync(join(mounted, 'cert-chain.pem'), certificatesPem(svid.chainDer));
  const got: string[] = [];
  while (got.length < 2) {
    got.push(...(await stream.next()).names);
    stream.ack();
  }
  expect(got).toEqual(['ROOTCA', 'default']);
  expect((await delta.next()).names).toEqual(['default']);
  expect(leafSerial((await fetching).secrets[0]!.chainPem)).toBe(svid.serial);
  await agent.stop();
  rmSync(own, { recursive: true });
});

test('D15 DeltaSecrets and FetchSecrets are served', async () => {
  const delta = client().openDelta();
  delta.request({ subscribe: ['ROOTCA', 'default'] });
  expect((await delta.next()).names).toEqual(['ROOTCA', 'default']);
  delta.ack();
  const serial = await rotate(daemon);
  expect(leafSerial((await delta.next()).secrets[0]!.chainPem)).toBe(serial);
  expect(leafSerial((await client().fetch(['default'])).secrets[0]!.chainPem)).toBe(serial);
});

test('D16 a node is not needed, and only the first one counts', async () => {
  const without = client().openStream();
  without.request(['default'], { node: undefined });
  await without.next();
  const stream = client().openStream();
  stream.request(['default'], { node: 'proxy-a' });
  await stream.next();
  stream.request(['default'], { node: 'proxy-b' });
  await stream.silence(50);
  const nodes = (await daemon.status()).workloads[0]!.sds.streams.map(({ node }) => node);
  expect(nodes.sort()).toEqual(['', 'proxy-a']);
});

test('D22 a version of any content and 400 KB is ignored', async () => {
  const stream = client().openStream();
  stream.request(['default'], { version: '9'.repeat(400_000) });
  expect((await stream.next()).names).toEqual(['default']);
  expect(LIMITS.requestBytes).toBeGreaterThan(400_000);
});

test('D23, D24 through changes of roots and leaves every push belongs together, and the bundle is always first', async () => {
  const own = mkdtempSync(join(tmpdir(), 'keyturn-sds-'));
  const caDir = join(own, 'var/lib/keyturn/ca');
  let [current, next] = [await issueCa('one'), await issueCa('two')];
  writeCaDir(caDir, { signer: current, roots: [current] });
  const agent = startDaemon({ dir: own });
  await agent.ready();
  const oracles: PushOracle[] = [];
  const follow = (names: readonly (readonly string[])[], proxy: SdsClient) => {
    const oracle = new PushOracle();
    oracles.push(oracle);
    for (const each of names) {
      const stream = proxy.openStream();
      stream.request(each);
      void (async () => {
        for (;;) {
          oracle.judge(await stream.next());
          stream.ack();
        }
      })().catch((error) => failures.push(error));
    }
  };
  const failures: Error[] = [];
  // As Envoy asks: a stream for each name on one connection; and a client with all names on one stream.
  follow([['ROOTCA'], ['default']], client(agent));
  await new Promise((done) => setTimeout(done, 100));
  follow([['default', 'ROOTCA']], client(agent));
  const rounds = FULL ? 10 : 2;
  for (let round = 0; round < rounds; round += 1) {
    await rotate(agent);
    const leaves = new Set(oracles[0]!.serials);
    // At once: a bundle that holds old and new, and the new signer.
    writeCaDir(caDir, { signer: next, roots: [current, next] });
    await until('a leaf of the new signer', async () =>
      [...oracles[0]!.serials].some((serial) => !leaves.has(serial)),
    );
    writeCaDir(caDir, { roots: [next] });
    await rotate(agent);
    [current, next] = [next, await issueCa(`three-${round}`)];
  }
  const newest = await rotate(agent);
  await until('the newest leaf', async () => oracles.every((oracle) => oracle.serials.has(newest)));
  expect(failures).toEqual([]);
  for (const oracle of oracles) expect(oracle.checked).toBeGreaterThanOrEqual(rounds * 2);
  await agent.stop();
  rmSync(own, { recursive: true });
});

test('D25 of two proxies one refuses, and the other is unaffected', async () => {
  const [bad, good] = [client().openStream(), client().openStream()];
  for (const each of [bad, good]) {
    each.request(['default']);
    await each.next();
  }
  good.ack();
  bad.nack('no');
  for (let round = 0; round < 3; round += 1) {
    const serial = await rotate(daemon);
    expect(leafSerial((await good.next()).secrets[0]!.chainPem)).toBe(serial);
    good.ack();
    expect(leafSerial((await bad.next()).secrets[0]!.chainPem)).toBe(serial);
    bad.nack('no');
  }
});

test('D26 two epochs of a proxy in hot restart are both served, and the first may go', async () => {
  const [old, young] = [client(), client()];
  const streams = [old, young].map((each) => each.openStream());
  for (const stream of streams) {
    stream.request(['default'], { node: 'sidecar~same' });
    await stream.next();
    stream.ack();
  }
  const serial = await rotate(daemon);
  for (const stream of streams) {
    expect(leafSerial((await stream.next()).secrets[0]!.chainPem)).toBe(serial);
    stream.ack();
  }
  old.close();
  await until('one stream', async () => (await openStreams(daemon)) === 1);
  const next = await rotate(daemon);
  expect(leafSerial((await streams[1]!.next()).secrets[0]!.chainPem)).toBe(next);
});

test.each(['StreamSecrets', 'DeltaSecrets'])(
  'a first message of %s that carries an error is taken for a subscription',
  async (method) => {
    const message = 'SSL error: key values mismatch';
    if (method === 'StreamSecrets') {
      const stream = client().openStream();
      stream.request(['default'], { error: message, nonce: '' });
      expect((await stream.next()).names).toEqual(['default']);
      const empty = client().openStream();
      empty.request([], { error: message });
      await empty.silence();
    } else {
      const stream = client().openDelta();
      stream.request({ subscribe: ['default'], error: message });
      expect((await stream.next()).names).toEqual(['default']);
      const empty = client().openDelta();
      empty.request({ error: message });
      await empty.silence();
    }
  },
);
