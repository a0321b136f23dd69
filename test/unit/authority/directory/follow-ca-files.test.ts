import {
  chmodSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { afterEach, expect, test } from '@jest/globals';
import { type Authority, openAuthority } from '../../../../agent/authority/authority';
import { CA_FILES } from '../../../../agent/authority/directory/ca-files';
import { parseCertificate } from '../../../../agent/identity/certificate';
import { directEngine } from '../../../../agent/identity/direct-engine';
import type { CertificateEngine } from '../../../../agent/identity/engine';
import { parseSpiffeId } from '../../../../agent/identity/spiffe-id';
import { acceptIssuedChain } from '../../../../agent/identity/svid';
import { createTrustBundle, type TrustBundle } from '../../../../agent/identity/trust-bundle';
import { writeCaDir } from '../../../support/ca-dir';
import { HOUR_MS, makeTestCa, TEST_ID, TEST_NOW, type TestCa } from '../../../support/certs';
import { tempDir } from '../../../support/temp-dir';
import { TestClock } from '../../../support/test-clock';
import { testDeps } from '../../../support/test-deps';
import { until } from '../../../support/until';

const ID = parseSpiffeId(TEST_ID);
const FULL = process.env.KEYTURN_TEST === 'full';

const opened: Authority[] = [];
afterEach(async () => {
  for (const authority of opened.splice(0)) await authority.close();
});

/** An authority that is being watched already, with what it tells in order: `roots A+B`, `signer`. */
async function follow(
  dir: string,
  named: Readonly<Record<string, TestCa>> = {},
  engine: CertificateEngine = directEngine,
) {
  const deps = testDeps();
  const authority = await openAuthority(
    { dir, trustDomain: 'cluster.local', rootAlgorithm: 'ecdsa-p256', engine },
    deps,
  );
  opened.push(authority);
  const told: string[] = [];
  authority.trust.subscribe((bundle) => told.push(`roots ${rootNames(bundle, named)}`));
  authority.onSignerChange(() => told.push('signer'));
  const issueOne = () => issue(authority);
  await issueOne();
  const tell = (count: number) => until(`event ${count}`, async () => told.length >= count);
  return { authority, told, tell, events: deps.events, issue: issueOne };
}

function rootNames(bundle: TrustBundle, named: Readonly<Record<string, TestCa>>): string {
  const names = Object.keys(named).filter((name) =>
    bundle.rootsDer.some((root) => Buffer.compare(root, named[name]!.certificateDer) === 0),
  );
  return names.join('+');
}

/** A certificate, judged by the bundle of now. */
async function issue(authority: Authority) {
  const key = await directEngine.generateKeyPair('ecdsa-p256');
  const reply = await authority.sign(await directEngine.createCsr(key, ID), ID, 600);
  return acceptIssuedChain(
    { id: ID, key, source: 'builtin' },
    reply,
    authority.trust.value,
    Date.now(),
  );
}

/** Whether a leaf verifies under a bundle. */
function isGood(svid: Awaited<ReturnType<typeof issue>>, roots: readonly TestCa[]): boolean {
  try {
    const bundle = createTrustBundle(roots.map(({ certificateDer }) => certificateDer));
    return (
      acceptIssuedChain(
        { id: ID, key: svid.key, source: 'builtin' },
        svid.chainDer,
        bundle,
        Date.now(),
      ).serial === svid.serial
    );
  } catch {
    return false;
  }
}

const errorsOf = (events: readonly { level: string; event: string }[]) =>
  events.filter(({ level }) => level === 'error' || level === 'warn').map(({ event }) => event);

const refusal = (authority: Authority) =>
  until('a refusal', async () => authority.describe().lastError);

const REFUSED = 'CA directory invalid, keeping the previous CA';

test('H1 a root is rotated: old, old and new, a new signer, new alone; roots are told before the signer', async () => {
  const [old, next] = [await makeTestCa({ name: 'old' }), await makeTestCa({ name: 'new' })];
  const dir = join(tempDir(), 'ca');
  writeCaDir(dir, { signer: old, roots: [old] });
  const { told, tell, issue: one, events } = await follow(dir, { old, next });
  const first = await one();
  writeCaDir(dir, { roots: [old, next] });
  await tell(2);
  const second = await one();
  writeCaDir(dir, { signer: next });
  await tell(3);
  const third = await one();
  writeCaDir(dir, { roots: [next] });
  await tell(4);
  expect(told).toEqual(['roots old', 'roots old+next', 'signer', 'roots next']);
  expect([first, second, third].map((svid) => [isGood(svid, [old]), isGood(svid, [next])])).toEqual(
    [
      [true, false],
      [true, false],
      [false, true],
    ],
  );
  expect(errorsOf(events)).toEqual([]);
});

test('H4 a rotation that is taken back halfway ends where it began', async () => {
  const [old, next] = [await makeTestCa({ name: 'old' }), await makeTestCa({ name: 'new' })];
  const dir = join(tempDir(), 'ca');
  writeCaDir(dir, { signer: old, roots: [old, next] });
  const { told, tell, issue: one } = await follow(dir, { old, next });
  writeCaDir(dir, { signer: next });
  await tell(2);
  writeCaDir(dir, { signer: old });
  await tell(3);
  writeCaDir(dir, { roots: [old] });
  await tell(4);
  expect(told).toEqual(['roots old+next', 'signer', 'signer', 'roots old']);
  expect(isGood(await one(), [old])).toBe(true);
});

test('H2 roots that are replaced without an overlap are taken up with a warning, roots first', async () => {
  const [old, next] = [await makeTestCa({ name: 'old' }), await makeTestCa({ name: 'new' })];
  const dir = join(tempDir(), 'ca');
  writeCaDir(dir, { signer: old, roots: [old] });
  const { told, tell, events } = await follow(dir, { old, next });
  writeCaDir(dir, { signer: next, roots: [next] });
  await tell(3);
  expect(told).toEqual(['roots old', 'roots next', 'signer']);
  expect(errorsOf(events)).toEqual(['CA roots replaced without an overlap']);
});

test('a root that the signer leads to cannot be taken away: the last good set stays, and it is said once', async () => {
  const [old, next] = [await makeTestCa({ name: 'old' }), await makeTestCa({ name: 'new' })];
  const dir = join(tempDir(), 'ca');
  writeCaDir(dir, { signer: old, roots: [old, next] });
  const { authority, told, events, issue: one } = await follow(dir, { old, next });
  writeCaDir(dir, { roots: [next] });
  expect(await refusal(authority)).toMatchObject({
    code: 'ERR_CA_STATE',
    message: expect.stringContaining('no trusted root'),
  });
  // Retried after a second, and refused again without a word.
  await pause(1_500);
  expect(told).toEqual(['roots old+next']);
  expect(errorsOf(events)).toEqual([REFUSED]);
  expect(isGood(await one(), [old])).toBe(true);
  writeCaDir(dir, { signer: next });
  await until('recovery', async () => authority.describe().lastError === undefined);
  expect(told).toEqual(['roots old+next', 'roots next', 'signer']);
});

test('E14 roots that become garbage keep the last good ones in service until they are mended', async () => {
  const root = await makeTestCa();
  const dir = join(tempDir(), 'ca');
  writeCaDir(dir, { signer: root, roots: [root] });
  const { authority, told, events, issue: one } = await follow(dir, { root });
  const good = readFileSync(join(dir, 'root-cert.pem'));
  for (const garbage of ['garbage', '', good.subarray(0, 200)]) {
    writeFileSync(join(dir, 'root-cert.pem'), garbage);
    expect(await refusal(authority)).toMatchObject({ field: 'root-cert.pem' });
    await one();
    writeFileSync(join(dir, 'root-cert.pem'), good);
    await until('recovery', async () => authority.describe().lastError === undefined);
  }
  expect(told).toEqual(['roots root']);
  expect(events.filter(({ event }) => event === 'CA directory valid again')).toHaveLength(3);
});

test('a directory that is emptied under a running CA is not filled again', async () => {
  const dir = join(tempDir(), 'ca');
  const { authority, told, issue: one } = await follow(dir);
  const kept = Object.values(CA_FILES).map(
    (name) => [name, readFileSync(join(dir, name))] as const,
  );
  for (const [name] of kept) rmSync(join(dir, name));
  expect(await refusal(authority)).toMatchObject({
    message: expect.stringContaining('none of ca-key.pem, ca-cert.pem'),
  });
  await one();
  expect(readdirSync(dir)).toEqual([]);
  for (const [name, bytes] of kept) writeFileSync(join(dir, name), bytes, { mode: 0o600 });
  await until('recovery', async () => authority.describe().lastError === undefined);
  expect(told).toHaveLength(1);
});

test('a key that is opened to others is complained of, and the CA goes on', async () => {
  const dir = join(tempDir(), 'ca');
  const { authority, issue: one } = await follow(dir);
  chmodSync(join(dir, 'ca-key.pem'), 0o644);
  expect(await refusal(authority)).toMatchObject({ hint: `chmod 0600 ${join(dir, 'ca-key.pem')}` });
  await one();
  chmodSync(join(dir, 'ca-key.pem'), 0o600);
  await until('recovery', async () => authority.describe().lastError === undefined);
});

test('files that are copied one by one with pauses, in any order, break nothing and end in the new set', async () => {
  const orders = [
    ['ca-key.pem', 'ca-cert.pem', 'cert-chain.pem', 'root-cert.pem'],
    ['ca-cert.pem', 'root-cert.pem', 'ca-key.pem', 'cert-chain.pem'],
    ['root-cert.pem', 'cert-chain.pem', 'ca-key.pem', 'ca-cert.pem'],
  ];
  await Promise.all(orders.map(copyInOrder));
});

async function copyInOrder(order: readonly string[]): Promise<void> {
  const [old, next] = [await makeTestCa({ name: 'old' }), await makeTestCa({ name: 'new' })];
  const signers = await Promise.all(
    [old, next].map((parent) => makeTestCa({ parent, name: 'signer' })),
  );
  const [dir, fresh] = [join(tempDir(), 'ca'), join(tempDir(), 'fresh')];
  writeCaDir(dir, { signer: signers[0]!, roots: [old] });
  writeCaDir(fresh, { signer: signers[1]!, roots: [old, next] });
  const { authority, told, issue: one } = await follow(dir, { old, next });
  for (const name of order) {
    cpSync(join(fresh, name), join(dir, name));
    await pause(350);
    await one();
  }
  await until(
    'the new signer',
    async () => told.includes('signer') && authority.describe().lastError === undefined,
  );
  expect(told).toEqual(['roots old', 'roots old+next', 'signer']);
  expect(isGood(await one(), [next])).toBe(true);
}

test('a swapped ..data link, as a kubelet does it, is followed', async () => {
  const [old, next] = [await makeTestCa({ name: 'old' }), await makeTestCa({ name: 'new' })];
  const dir = tempDir();
  const generation = (name: string, signer: TestCa, roots: TestCa[]) => {
    writeCaDir(join(dir, name), { signer, roots });
    symlinkSync(name, join(dir, '..data_tmp'));
    renameSync(join(dir, '..data_tmp'), join(dir, '..data'));
  };
  generation('..1', old, [old]);
  for (const name of Object.values(CA_FILES)) symlinkSync(join('..data', name), join(dir, name));
  const { told, tell, issue: one } = await follow(dir, { old, next });
  generation('..2', old, [old, next]);
  rmSync(join(dir, '..1'), { recursive: true });
  await tell(2);
  generation('..3', next, [old, next]);
  rmSync(join(dir, '..2'), { recursive: true });
  await tell(3);
  expect(told).toEqual(['roots old', 'roots old+next', 'signer']);
  expect(isGood(await one(), [next])).toBe(true);
});

test('B7 a certificate that is being signed while the CA is reloaded has the chain of the one that signed it', async () => {
  const root = await makeTestCa();
  const signers = await Promise.all(
    ['one', 'two'].map((name) => makeTestCa({ parent: root, name })),
  );
  const dir = join(tempDir(), 'ca');
  writeCaDir(dir, { signer: signers[0]!, roots: [root] });
  let release = () => {};
  let held: Promise<void> | undefined;
  const slow: CertificateEngine = {
    ...directEngine,
    createCertificate: async (spec, key) => {
      // The leaf that proves a new signer goes through.
      if (spec.profile.kind !== 'leaf' || !spec.profile.uri.endsWith('/probe')) await held;
      return directEngine.createCertificate(spec, key);
    },
  };
  const { told, issue: one, authority } = await follow(dir, { root }, slow);
  held = new Promise((resolve) => {
    release = resolve;
  });
  const early = one();
  writeCaDir(dir, { signer: signers[1]! });
  await until('the new signer', async () => told.includes('signer'));
  release();
  expect((await early).chainDer[1]).toEqual(signers[0]!.certificateDer);
  expect((await issue(authority)).chainDer[1]).toEqual(signers[1]!.certificateDer);
});

test('B7 reloads under load never mix a chain', async () => {
  const root = await makeTestCa();
  const signers = await Promise.all(
    ['one', 'two'].map((name) => makeTestCa({ parent: root, name })),
  );
  const dir = join(tempDir(), 'ca');
  writeCaDir(dir, { signer: signers[0]!, roots: [root] });
  const { told, issue: one } = await follow(dir, { root });
  const changes = FULL ? 40 : 4;
  let issued = 0;
  const load = (async () => {
    // The gate throws where leaf and chain do not belong together.
    for (; told.length <= changes || issued < 50 * changes; issued += 1)
      await one().then(() => pause(1));
  })();
  for (let change = 1; change <= changes; change += 1) {
    writeCaDir(dir, { signer: signers[change % 2]! });
    // So many at least under each signer, however busy the machine is.
    await until(`change ${change}`, async () => told.length > change && issued >= 50 * change);
  }
  await load;
  expect(issued).toBeGreaterThanOrEqual(50 * changes);
});

test('several processes on one directory follow the same change', async () => {
  const [old, next] = [await makeTestCa({ name: 'old' }), await makeTestCa({ name: 'new' })];
  const dir = join(tempDir(), 'ca');
  writeCaDir(dir, { signer: old, roots: [old] });
  const all = await Promise.all([1, 2, 3].map(() => follow(dir, { old, next })));
  writeCaDir(dir, { roots: [old, next] });
  await Promise.all(all.map(({ tell }) => tell(2)));
  expect(all.map(({ told }) => told)).toEqual(all.map(() => ['roots old', 'roots old+next']));
});

test('a CA that expires while it runs is told of when it happens, and a fresh one is taken up', async () => {
  const root = await makeTestCa({ notAfterAt: TEST_NOW + HOUR_MS });
  const fresh = await makeTestCa({ name: 'fresh' });
  const dir = join(tempDir(), 'ca');
  writeCaDir(dir, { signer: root, roots: [root] });
  const clock = new TestClock();
  const deps = testDeps({ clock });
  const authority = await openAuthority(
    { dir, trustDomain: 'cluster.local', rootAlgorithm: 'ecdsa-p256', engine: directEngine },
    deps,
  );
  opened.push(authority);
  const advance = (what: string, wanted: () => boolean) =>
    until(what, async () => clock.advanceBy(250).then(wanted), 20_000, 10);
  await advance('the first read', () => clock.now() > TEST_NOW + 5_000);
  expect(authority.describe().lastError).toBeUndefined();
  await clock.jumpTo(TEST_NOW + HOUR_MS);
  await advance('the complaint', () => authority.describe().lastError !== undefined);
  expect(authority.describe().lastError).toMatchObject({
    rule: expect.stringContaining('must not be expired'),
  });
  writeCaDir(dir, { signer: fresh, roots: [root, fresh] });
  await advance('the fresh CA', () => authority.describe().subject === 'O=cluster.local, CN=fresh');
  expect(authority.describe().lastError).toBeUndefined();
});

test('close ends the watch before and after it has begun, and twice', async () => {
  for (const begun of [true, false]) {
    const dir = join(tempDir(), 'ca');
    const authority = await openAuthority(
      { dir, trustDomain: 'cluster.local', rootAlgorithm: 'ecdsa-p256', engine: directEngine },
      testDeps(),
    );
    const told: string[] = [];
    if (begun) await issue(authority);
    authority.onSignerChange(() => told.push('signer'));
    await authority.close();
    await authority.close();
    const other = await makeTestCa();
    writeCaDir(dir, { signer: other, roots: [other] });
    await pause(400);
    expect([told, authority.describe().lastError]).toEqual([[], undefined]);
  }
});

test('a directory that is moved away and made anew is followed', async () => {
  const [old, next] = [await makeTestCa({ name: 'old' }), await makeTestCa({ name: 'new' })];
  const dir = join(tempDir(), 'ca');
  writeCaDir(dir, { signer: old, roots: [old] });
  const { told, tell } = await follow(dir, { old, next });
  renameSync(dir, `${dir}.old`);
  mkdirSync(dir, { mode: 0o700 });
  writeCaDir(dir, { signer: next, roots: [old, next] });
  await tell(3);
  expect(told).toEqual(['roots old', 'roots old+next', 'signer']);
});

test.each([
  ['in an hour', HOUR_MS],
  ['within the tolerance of clocks', 30_000],
])(
  'field A2 a renewed root that begins %s counts from then on, and no certificate waits for it',
  async (_, beginsInMs) => {
    const old = await makeTestCa({ notAfterAt: TEST_NOW + 2 * HOUR_MS });
    const renewed = await makeTestCa({
      privateKey: old.privateKey,
      notBeforeAt: TEST_NOW + beginsInMs,
    });
    const dir = join(tempDir(), 'ca');
    writeCaDir(dir, { signer: old, roots: [old, renewed] });
    const clock = new TestClock();
    const deps = testDeps({ clock });
    const authority = await openAuthority(
      { dir, trustDomain: 'cluster.local', rootAlgorithm: 'ecdsa-p256', engine: directEngine },
      deps,
    );
    opened.push(authority);
    expect(authority.describe().notAfterAt).toBe(TEST_NOW + 2 * HOUR_MS);
    const key = await directEngine.generateKeyPair('ecdsa-p256');
    const [leaf] = await authority.sign(await directEngine.createCsr(key, ID), ID, 10);
    expect(parseCertificate(leaf!).notBeforeAt).toBeLessThan(TEST_NOW);
    const advance = (what: string, wanted: () => boolean) =>
      until(what, async () => clock.advanceBy(250).then(wanted), 20_000, 10);
    await advance('the first read', () => clock.now() > TEST_NOW + 5_000);
    await clock.jumpTo(TEST_NOW + beginsInMs);
    // The signer's own certificate is the old root, but what it signs leads to the renewed one.
    await advance(
      'the renewed root',
      () => authority.describe().notAfterAt > TEST_NOW + 1_000 * HOUR_MS,
    );
  },
);
