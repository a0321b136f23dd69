import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect } from '@jest/globals';
import { openKubeStore } from '../../agent/authority/store/kube-store';
import type { CaStore } from '../../agent/authority/store/store';
import { Secret } from '../../agent/base/secret';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import type { KubeApi } from '../../agent/kube/kube-api';
import { issuedEntry, tokenClaim } from '../support/ca-store';
import { HOUR_MS, TEST_ID, TEST_NOW } from '../support/certs';
import { bundle } from '../support/child';
import { type Kube, startKube } from '../support/kube';
import { peerPath } from '../support/peer-path';
import { testWith } from '../support/peers';
import { LOAD_ID, REPLICA_AT_ONCE, replicaProgram, startReplica } from '../support/store-replica';
import { testDeps } from '../support/test-deps';

const test = testWith('kube');
const ID = parseSpiffeId(TEST_ID);
const NAMESPACE = 'keyturn';
const FULL = process.env.KEYTURN_TEST === 'full';

let kube: Kube;
let userToken: string;
let api: KubeApi;
const opened: CaStore[] = [];

beforeAll(async () => {
  if (peerPath('kube') === undefined) return;
  kube = await startKube();
  for (const each of ['namespace/namespace.yaml', 'ca/rbac.yaml']) {
    await kube.apply(readFileSync(join(__dirname, '../../scripts/deploy', each), 'utf8'));
  }
  userToken = await kube.token(NAMESPACE, 'keyturn-ca');
  // Never as an administrator: the manifest must be enough.
  api = await kube.as({ token: userToken });
});
afterEach(async () => {
  for (const store of opened.splice(0)) await store.close();
});
afterAll(() => kube?.stop());

async function open(): Promise<CaStore> {
  const store = await openKubeStore(api, NAMESPACE, testDeps());
  opened.push(store);
  return store;
}

const serialsOf = (entries: readonly { serial: string }[]) =>
  entries.map(({ serial }) => serial).sort();

test('replicas know each other’s certificates, tokens, revocations and CRL numbers', async () => {
  const [one, two] = [await open(), await open()];
  const mine = issuedEntry({ id: 'spiffe://cluster.local/replicas' });
  const entries = [mine, ...Array.from({ length: 600 }, () => issuedEntry())];
  await Promise.all(entries.map((entry, index) => (index % 2 ? one : two).recordIssued(entry)));
  expect(serialsOf(await one.issued({}, TEST_NOW))).toEqual(serialsOf(entries));
  expect(await two.issued({ id: mine.id }, TEST_NOW)).toEqual([mine]);

  const token = await one.createJoinToken(ID, 60, TEST_NOW);
  const late = await one.createJoinToken(ID, 60, TEST_NOW);
  expect(await two.redeemJoinToken(token, tokenClaim(), TEST_NOW)).toEqual({
    kind: 'redeemed',
    id: ID,
    again: 0,
  });
  expect(await one.redeemJoinToken(token, tokenClaim(), TEST_NOW)).toEqual({
    kind: 'refused',
    why: 'another key',
  });
  expect(await two.redeemJoinToken(late, tokenClaim(), TEST_NOW + 60_000)).toEqual({
    kind: 'refused',
    why: 'expired',
  });
  expect(
    await two.redeemJoinToken(new Secret(`kt1_${'A'.repeat(43)}`), tokenClaim(), TEST_NOW),
  ).toEqual({
    kind: 'refused',
    why: 'unknown',
  });
  expect(await two.redeemJoinToken(new Secret('kt1_'), tokenClaim(), TEST_NOW)).toEqual({
    kind: 'refused',
    why: 'malformed',
  });

  let told = () => {};
  const call = () => new Promise<void>((done) => (told = done));
  const first = call();
  two.onRevocation(() => told());
  await first;
  const second = call();
  const revoked = await one.revoke({ id: mine.id }, 'keyCompromise', TEST_NOW);
  await second;
  expect(await two.revocations(TEST_NOW)).toEqual(revoked);
  expect(await two.revoke({ serial: mine.serial }, 'superseded', TEST_NOW)).toEqual([]);
  const numbers = await Promise.all(
    Array.from({ length: 10 }, (_, index) => [one, two][index % 2]!.nextCrlNumber()),
  );
  expect(new Set(numbers).size).toBe(10);

  await one.sweep(TEST_NOW + 26 * HOUR_MS);
  expect([await one.revocations(0), await two.issued({}, 0)]).toEqual([[], []]);
  expect(await two.redeemJoinToken(token, tokenClaim(), TEST_NOW)).toEqual({
    kind: 'refused',
    why: 'unknown',
  });
  // Both go on, though the objects that they were filling are gone.
  const next = [issuedEntry(), issuedEntry()];
  await Promise.all([one.recordIssued(next[0]!), two.recordIssued(next[1]!)]);
  expect(serialsOf(await one.issued({}, TEST_NOW))).toEqual(serialsOf(next));
  await one.sweep(TEST_NOW + 26 * HOUR_MS);
});

test('a certificate that has ended is renewed once, by one replica, and closed with its identity', async () => {
  const [one, two] = [await open(), await open()];
  const entry = issuedEntry({ renewableUntilAt: TEST_NOW + 3 * HOUR_MS });
  await one.recordIssued(entry);
  const now = TEST_NOW + 2 * HOUR_MS;
  await one.sweep(now);
  expect(await two.issued({}, now)).toEqual([]);
  expect(await two.issued({ about: new Set([entry.serial]) }, 0)).toEqual([entry]);
  const expired = { serial: entry.serial, id: ID, renewableUntilAt: TEST_NOW + 3 * HOUR_MS };
  const claims = Array.from({ length: 6 }, () => tokenClaim());
  const outcomes = await Promise.all(
    claims.map((claim, index) => [one, two][index % 2]!.redeemExpired(expired, claim, now)),
  );
  expect(outcomes.filter(({ kind }) => kind === 'redeemed')).toEqual([
    { kind: 'redeemed', id: ID, again: 0 },
  ]);
  const won = claims[outcomes.findIndex(({ kind }) => kind === 'redeemed')]!;
  expect(await two.redeemExpired(expired, { ...won, by: 'again' }, now)).toMatchObject({
    kind: 'redeemed',
    again: 1,
  });
  expect(await two.revoke({ id: TEST_ID }, 'keyCompromise', now)).toMatchObject([
    { serial: entry.serial },
  ]);
  expect(await one.revocations(now)).toHaveLength(1);
  expect(await one.redeemExpired(expired, { ...won, by: 'later' }, now)).toEqual({
    kind: 'refused',
    why: 'deleted',
  });
  await one.sweep(TEST_NOW + 48 * HOUR_MS);
  expect([await one.revocations(0), await one.issued({}, 0)]).toEqual([[], []]);
});

test('field B2 whether the register takes entries is tried by a write that leaves none', async () => {
  const store = await open();
  await Promise.all([store.probe(), store.probe()]);
  const entry = issuedEntry();
  await store.recordIssued(entry);
  await store.probe();
  expect(await store.issued({}, TEST_NOW)).toEqual([entry]);
  await store.sweep(TEST_NOW + 26 * HOUR_MS);
  await store.probe();
  expect(await store.issued({}, 0)).toEqual([]);
  await store.sweep(TEST_NOW + 26 * HOUR_MS);
});

test('what has expired makes room for revocations; where there is none, nothing is revoked and a remedy is named', async () => {
  const store = await open();
  // As long as identities may be, so that some hundreds fill the object.
  const id = `spiffe://cluster.local/${'x'.repeat(1_900)}`;
  const batch = (notAfterAt: number) =>
    Array.from({ length: 300 }, () => issuedEntry({ id, notAfterAt }));
  const record = (entries: ReturnType<typeof batch>) =>
    Promise.all(entries.map((entry) => store.recordIssued(entry)));
  await record(batch(TEST_NOW + HOUR_MS));
  expect(await store.revoke({ id }, 'superseded', TEST_NOW)).toHaveLength(300);
  const next = batch(TEST_NOW + 2 * HOUR_MS);
  await record(next);
  await expect(store.revoke({ id }, 'superseded', TEST_NOW)).rejects.toMatchObject({
    code: 'ERR_CA_STATE',
    message: expect.stringContaining('revoke 300 certificates: beside 300 that have not expired'),
    hint: expect.stringContaining('ca root add'),
  });
  expect(await store.revocations(TEST_NOW)).toHaveLength(300);
  expect(serialsOf(await store.revoke({ id }, 'superseded', TEST_NOW + HOUR_MS))).toEqual(
    serialsOf(next),
  );
  expect(serialsOf(await store.revocations(TEST_NOW))).toEqual(serialsOf(next));
  await store.sweep(TEST_NOW + 26 * HOUR_MS);
});

test('whoever may not read the namespace is told at the start', async () => {
  const stranger = await kube.as({ token: await kube.token('default', 'default') });
  await expect(openKubeStore(stranger, NAMESPACE, testDeps())).rejects.toMatchObject({
    code: 'ERR_CA_STATE',
    message: expect.stringMatching(/^open the state in namespace keyturn of https:.*: 403/),
    hint: expect.stringContaining('RBAC'),
  });
});

const REPLICA = replicaProgram(
  `import { openKubeStore } from './agent/authority/store/kube-store';
  import { createKubeApi } from './agent/kube/kube-api';
  import { loadKubeConfig } from './agent/kube/kube-config';`,
  `const api = createKubeApi(await loadKubeConfig({ kubeconfig: argument, env: {} }, deps), deps);
    const store = await openKubeStore(api, '${NAMESPACE}', deps);
    after = () => api.close();`,
);

test(
  'of three replicas one is killed under load: a token is won once, nothing is lost, no number comes twice',
  async () => {
    const store = await open();
    const tokens = await Promise.all(
      Array.from({ length: FULL ? 200 : 40 }, () => store.createJoinToken(ID, 600, TEST_NOW)),
    );
    const texts = tokens.map((token) => token.reveal());
    const program = bundle(REPLICA);
    const kubeconfig = kube.writeKubeconfig({ token: userToken });
    const replicas = [0, 1, 2].map((turn) =>
      startReplica(program, kubeconfig, [...texts.slice(turn * 9), ...texts.slice(0, turn * 9)]),
    );
    await Promise.all(replicas.map((each) => each.seen('ready', 1)));
    for (const each of replicas) each.go();
    const [victim, ...others] = replicas;
    await Promise.all([victim!.seen('redeemed', 5), victim!.seen('entered', 100)]);
    await victim!.kill();
    await Promise.all(others.map((each) => each.seen('entered', FULL ? 5_000 : 500)));
    expect(await Promise.all(others.map((each) => each.stop()))).toEqual([0, 0]);

    const won = replicas.flatMap(({ said }) => said('redeemed'));
    expect(new Set(won).size).toBe(won.length);
    // One whose winner died before it could say so is lost, and good for nobody: at most the one that was under way.
    expect(won.length).toBeGreaterThanOrEqual(texts.length - 1);
    for (const token of tokens)
      expect(await store.redeemJoinToken(token, tokenClaim(), TEST_NOW)).toEqual({
        kind: 'refused',
        why: 'another key',
      });

    const entered = replicas.flatMap(({ said }) => said('entered'));
    const found = new Set(
      (await store.issued({ id: LOAD_ID }, TEST_NOW)).map(({ serial }) => serial),
    );
    expect(entered.filter((serial) => !found.has(serial))).toEqual([]);
    expect(new Set(entered).size).toBe(entered.length);
    // What the victim had entered and not yet said is there too, and is no more than what it had under way.
    expect(found.size - entered.length).toBeLessThanOrEqual(REPLICA_AT_ONCE);

    const numbers = replicas.flatMap(({ said }) => said('number')).map(Number);
    expect(new Set(numbers).size).toBe(numbers.length);
    for (const { said } of replicas)
      expect(said('number').map(Number)).toEqual(
        said('number')
          .map(Number)
          .sort((one, other) => one - other),
      );
    await store.sweep(TEST_NOW + 26 * HOUR_MS);
  },
  FULL ? 300_000 : 90_000,
);
