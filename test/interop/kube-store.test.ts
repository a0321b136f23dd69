import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect } from '@jest/globals';
import { Secret } from '../../agent/base/secret';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { openKubeStore } from '../../ca-client/builtin/store/kube-store';
import type { CaStore } from '../../ca-client/builtin/store/store';
import type { KubeApi } from '../../ca-client/kubernetes/kube-api';
import { issuedEntry } from '../support/ca-store';
import { HOUR_MS, TEST_ID, TEST_NOW } from '../support/certs';
import { bundle } from '../support/child';
import { type Kube, startKube } from '../support/kube';
import { peerPath } from '../support/peer-path';
import { testWith } from '../support/peers';
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
  await kube.apply(readFileSync(join(__dirname, '../../scripts/deploy/ca-state.yaml'), 'utf8'));
  userToken = await kube.token(NAMESPACE, 'keyturn-ca');
  // Never as an administrator: the manifest must be enough.
  api = await kube.as({ token: userToken });
}, 60_000);
afterEach(async () => {
  for (const store of opened.splice(0)) await store.close();
});
afterAll(() => kube?.stop());

async function open(): Promise<CaStore> {
  const store = await openKubeStore(api, NAMESPACE, testDeps());
  opened.push(store);
  return store;
}

const serialsOf = (entries: readonly { serial: string }[]) => entries.map(({ serial }) => serial).sort();

test('replicas know each other’s certificates, tokens, revocations and CRL numbers', async () => {
  const [one, two] = [await open(), await open()];
  const mine = issuedEntry({ id: 'spiffe://cluster.local/replicas' });
  const entries = [mine, ...Array.from({ length: 600 }, () => issuedEntry())];
  await Promise.all(entries.map((entry, index) => (index % 2 ? one : two).recordIssued(entry)));
  expect(serialsOf(await one.issued({}, TEST_NOW))).toEqual(serialsOf(entries));
  expect(await two.issued({ id: mine.id }, TEST_NOW)).toEqual([mine]);

  const token = await one.createJoinToken(ID, 60, TEST_NOW);
  const late = await one.createJoinToken(ID, 60, TEST_NOW);
  expect(await two.redeemJoinToken(token, TEST_NOW)).toEqual({ kind: 'redeemed', id: ID });
  expect(await one.redeemJoinToken(token, TEST_NOW)).toEqual({ kind: 'refused', why: 'used' });
  expect(await two.redeemJoinToken(late, TEST_NOW + 60_000)).toEqual({ kind: 'refused', why: 'expired' });
  expect(await two.redeemJoinToken(new Secret(`kt1_${'A'.repeat(43)}`), TEST_NOW)).toEqual({ kind: 'refused', why: 'unknown' });
  expect(await two.redeemJoinToken(new Secret('kt1_'), TEST_NOW)).toEqual({ kind: 'refused', why: 'malformed' });

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
  const numbers = await Promise.all(Array.from({ length: 10 }, (_, index) => [one, two][index % 2]!.nextCrlNumber()));
  expect(new Set(numbers).size).toBe(10);

  await one.sweep(TEST_NOW + 26 * HOUR_MS);
  expect([await one.revocations(0), await two.issued({}, 0)]).toEqual([[], []]);
  expect(await two.redeemJoinToken(token, TEST_NOW)).toEqual({ kind: 'refused', why: 'unknown' });
  // Both go on, though the objects that they were filling are gone.
  const next = [issuedEntry(), issuedEntry()];
  await Promise.all([one.recordIssued(next[0]!), two.recordIssued(next[1]!)]);
  expect(serialsOf(await one.issued({}, TEST_NOW))).toEqual(serialsOf(next));
  await one.sweep(TEST_NOW + 26 * HOUR_MS);
}, 60_000);

test('whoever may not read the namespace is told at the start', async () => {
  const stranger = await kube.as({ token: await kube.token('default', 'default') });
  await expect(openKubeStore(stranger, NAMESPACE, testDeps())).rejects.toMatchObject({
    code: 'ERR_CA_STATE',
    message: expect.stringMatching(/^open the state in namespace keyturn of https:.*: 403/),
    hint: expect.stringContaining('RBAC'),
  });
});

/** A replica under load: it redeems, enters and numbers until it is told to stop or killed, and prints what it was promised. */
const REPLICA = `
  import { randomBytes } from 'node:crypto';
  import { once } from 'node:events';
  import { writeSync } from 'node:fs';
  import { systemClock } from './agent/base/clock';
  import { noLog } from './agent/base/log';
  import { noMetrics } from './agent/base/metrics';
  import { Secret } from './agent/base/secret';
  import { openKubeStore } from './ca-client/builtin/store/kube-store';
  import { createKubeApi } from './ca-client/kubernetes/kube-api';
  import { loadKubeConfig } from './ca-client/kubernetes/kube-config';
  const say = (...words: unknown[]) => writeSync(1, words.join(' ') + '\\n');
  async function main() {
    const [kubeconfig, tokens] = [process.argv[2]!, process.argv[3]!.split(',')];
    const deps = { clock: systemClock, random: Math.random, log: noLog, metrics: noMetrics };
    const api = createKubeApi(await loadKubeConfig({ kubeconfig, env: {} }, deps), deps);
    const store = await openKubeStore(api, '${NAMESPACE}', deps);
    say('ready');
    await once(process.stdin, 'data');
    let stopped = false;
    void once(process.stdin, 'end').then(() => (stopped = true));
    const enter = async () => {
      while (!stopped) {
        const serial = randomBytes(16).toString('hex');
        await store.recordIssued({ serial, id: 'spiffe://cluster.local/load', keySha256: '', issuedAt: 0, notAfterAt: ${TEST_NOW + HOUR_MS}, issuerKeyId: '', rootKeySha256: '' });
        say('entered', serial);
      }
    };
    const redeem = async () => {
      for (const token of tokens) {
        const { kind } = await store.redeemJoinToken(new Secret(token), ${TEST_NOW});
        say(kind, token);
      }
    };
    const number = async () => {
      while (!stopped) say('number', await store.nextCrlNumber());
    };
    await Promise.all([...Array.from({ length: 20 }, enter), redeem(), number()]);
    await store.close();
    await api.close();
  }
  void main();
`;

function startReplica(program: string, args: readonly string[]) {
  const child: ChildProcess = spawn(process.execPath, [program, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines: string[] = [];
  let rest = '';
  const listeners = new Set<() => void>();
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    const parts = (rest + text).split('\n');
    rest = parts.pop()!;
    lines.push(...parts);
    for (const listener of listeners) listener();
  });
  const ended = new Promise<number | null>((done) => child.on('close', (code) => done(code)));
  const seen = (word: string, count: number) =>
    new Promise<void>((done) => {
      const look = () => {
        if (lines.filter((line) => line.startsWith(word)).length >= count) done();
      };
      listeners.add(look);
      look();
    });
  return {
    child,
    ended,
    seen,
    said: (word: string) => lines.filter((line) => line.startsWith(`${word} `)).map((line) => line.split(' ')[1]!),
  };
}

test(
  'of three replicas one is killed under load: a token is won once, nothing is lost, no number comes twice',
  async () => {
    const store = await open();
    const tokens = await Promise.all(Array.from({ length: FULL ? 200 : 40 }, () => store.createJoinToken(ID, 600, TEST_NOW)));
    const texts = tokens.map((token) => token.reveal());
    const program = bundle(REPLICA);
    const kubeconfig = kube.writeKubeconfig({ token: userToken });
    const replicas = [0, 1, 2].map((turn) =>
      startReplica(program, [kubeconfig, [...texts.slice(turn * 9), ...texts.slice(0, turn * 9)].join()]),
    );
    await Promise.all(replicas.map((each) => each.seen('ready', 1)));
    for (const { child } of replicas) child.stdin!.write('go\n');
    const [victim, ...others] = replicas;
    await Promise.all([victim!.seen('redeemed', 5), victim!.seen('entered', 100)]);
    victim!.child.kill('SIGKILL');
    await victim!.ended;
    await Promise.all(others.map((each) => each.seen('entered', FULL ? 5_000 : 500)));
    for (const { child } of others) child.stdin!.end();
    expect(await Promise.all(others.map(({ ended }) => ended))).toEqual([0, 0]);

    const won = replicas.flatMap(({ said }) => said('redeemed'));
    expect(new Set(won).size).toBe(won.length);
    // One whose winner died before it could say so is lost, and good for nobody: at most the one that was under way.
    expect(won.length).toBeGreaterThanOrEqual(texts.length - 1);
    for (const token of tokens) expect(await store.redeemJoinToken(token, TEST_NOW)).toEqual({ kind: 'refused', why: 'used' });

    const entered = replicas.flatMap(({ said }) => said('entered'));
    const found = new Set((await store.issued({ id: 'spiffe://cluster.local/load' }, TEST_NOW)).map(({ serial }) => serial));
    expect(entered.filter((serial) => !found.has(serial))).toEqual([]);
    expect(new Set(entered).size).toBe(entered.length);
    // What the victim had entered and not yet said is there too, and is no more than what it had under way.
    expect(found.size - entered.length).toBeLessThanOrEqual(20);

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
