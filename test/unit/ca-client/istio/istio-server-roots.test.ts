import { generateKeyPairSync } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { certificatesPem, parseCertificate } from '../../../../agent/identity/certificate';
import { PURPOSE } from '../../../../agent/identity/extensions';
import { createTrustBundle } from '../../../../agent/identity/trust-bundle';
import { openLearningTrust } from '../../../../ca-client/istio/learning-trust';
import type { IstioCaOptions } from '../../../../ca-client/istio/options';
import { stillAnnounced } from '../../../../ca-client/istio/server-roots';
import { dnsName, HOUR_MS, issueLeaf, spkiOf, TEST_ID, type TestCa } from '../../../support/certs';
import { type FakeCa, type FakeCaOptions, startFakeIstiod } from '../../../support/fake-istio-csr';
import { closing, issue, openClient, WorkloadFiles } from '../../../support/istio-world';
import { testDeps } from '../../../support/test-deps';
import { liveCa, type PemPair, rootsPem, serverPair } from '../../../support/tls-ca';

/** A CA that changes its root, and a workload that has a copy of the one before. */
async function world() {
  const [old, next] = [await liveCa({ name: 'old' }), await liveCa({ name: 'next' })];
  const files = new WorkloadFiles().roots(old);
  const stateDir = join(files.dir, 'state');
  mkdirSync(stateDir, { mode: 0o700 });
  let running: FakeCa | undefined;
  const serve = async (options: FakeCaOptions): Promise<FakeCa> => {
    const [port, tokens] = [
      running && Number(running.server.address.split(':')[1]),
      running?.tokens,
    ];
    await running?.close();
    running = await startFakeIstiod({
      ...options,
      ...(port !== undefined && { port }),
      ...(tokens && { tokens }),
    });
    files.token(running.token(TEST_ID));
    return running;
  };
  closing({ close: async () => running?.close() });
  const open = async (options: Partial<IstioCaOptions> = {}) =>
    (await openClient(files, { address: running!.server.address, stateDir, ...options })).ca;
  /** What a process learns and keeps. */
  const learn = async () => {
    const ca = await open();
    await issue(ca);
    await ca.close();
  };
  return { old, next, files, stateDir, serve, open, learn };
}

type World = Awaited<ReturnType<typeof world>>;

const both = ({ old, next }: World) => ({ signer: old, roots: [old, next] });
const retired = ({ next }: World) => ({ signer: next });
const refused = {
  code: 'ERR_CA_UNAVAILABLE',
  message: expect.stringMatching(
    /self.signed certificate|local issuer certificate|unable to verify/i,
  ),
};

describe('field 14 a root that a server taught is good for its own TLS', () => {
  test('once its first root is retired, while the copy of the roots has that one only; over a restart too', async () => {
    const at = await world();
    await at.serve(both(at));
    const first = await at.open();
    await issue(first);
    await at.serve(retired(at));
    expect((await issue(first)).serial).toBeDefined();
    await first.close();
    expect((await issue(await at.open())).serial).toBeDefined();
  });

  test('and so is the one that it teaches next by that one', async () => {
    const at = await world();
    const third = await liveCa({ name: 'third' });
    await at.serve(both(at));
    const ca = await at.open();
    await issue(ca);
    await at.serve({ signer: at.next, roots: [at.next, third] });
    await issue(ca);
    await at.serve({ signer: third });
    expect((await issue(ca)).serial).toBeDefined();
    // All of it hangs on the one in the file.
    at.files.roots(await liveCa({ name: 'other' }));
    await expect(issue(ca)).rejects.toMatchObject(refused);
  });

  test.each<[string, (at: World) => Promise<Partial<IstioCaOptions> | undefined>]>([
    ['which left the file', async ({ files }) => void files.roots(await liveCa({ name: 'other' }))],
    [
      'whose bundle no longer has the root',
      async (at) => {
        await at.serve({ signer: at.old, roots: [at.old] });
        await at.learn();
        return undefined;
      },
    ],
  ])('but not of one %s', async (_, change) => {
    const at = await world();
    await at.serve(both(at));
    await at.learn();
    await change(at);
    await at.serve(retired(at));
    await expect(issue(await at.open())).rejects.toMatchObject(refused);
  });

  test('nor of another address, nor of another CA', async () => {
    const at = await world();
    const { server } = await at.serve(both(at));
    await at.learn();
    await at.serve(retired(at));
    const elsewhere = server.address.replace('localhost', '127.0.0.1');
    await expect(issue(await at.open({ address: elsewhere }))).rejects.toMatchObject(refused);
    await expect(issue(await at.open({ name: 'istio-csr' }))).rejects.toMatchObject(refused);
  });

  test.each<[string, (at: World, tls: TestCa) => FakeCaOptions]>([
    [
      'another root issued its certificate than ours',
      (at, tls) => ({ ...both(at), pair: serverPair(tls) }),
    ],
    [
      'another root issued ours than its certificate',
      (at, tls) => ({ signer: tls, roots: [tls, at.next], pair: serverPair(at.old) }),
    ],
  ])('nor where %s, though both are in the file', async (_, first) => {
    const at = await world();
    const tls = await liveCa({ name: 'tls' });
    at.files.roots(at.old, tls);
    await at.serve(first(at, tls));
    const ca = await at.open();
    await issue(ca);
    await at.serve(retired(at));
    await expect(issue(ca)).rejects.toMatchObject(refused);
  });

  test.each<[string, RegExp, (next: TestCa) => PemPair]>([
    ['name', /altnames/, (next) => serverPair(next, ['other.example'])],
    ['purpose', /purpose/, (next) => serverPairOf(next, [PURPOSE.clientAuth])],
  ])('and its %s is verified as ever', async (_, words, pair) => {
    const at = await world();
    await at.serve(both(at));
    const ca = await at.open();
    await issue(ca);
    await at.serve({ ...retired(at), pair: pair(at.next) });
    await expect(issue(ca)).rejects.toMatchObject({
      code: 'ERR_CA_UNAVAILABLE',
      message: expect.stringMatching(words),
    });
    await at.serve({ ...retired(at), pair: serverPairOf(at.next, [PURPOSE.serverAuth]) });
    await issue(ca);
  });

  test('the roots of the machine are never added to', async () => {
    const at = await world();
    const { server } = await at.serve(both(at));
    await at.learn();
    const options = {
      ca: 'istiod',
      address: server.address,
      path: at.files.rootPath,
      stateDir: at.stateDir,
      domains: undefined,
    };
    const trust = closing(await openLearningTrust(options, testDeps()));
    const pem = rootsPem(at.old);
    const ofMesh = trust.ofServer({ pem, bundle: at.old.bundle, version: 'x' });
    expect(ofMesh.bundle).toEqual(
      createTrustBundle([at.old.certificateDer, at.next.certificateDer]),
    );
    const ofMachine = { pem, bundle: undefined, version: 'x' };
    expect(trust.ofServer(ofMachine)).toBe(ofMachine);
  });
});

test('a reply that announces no roots takes none back', async () => {
  const [old, next] = [await liveCa({ name: 'old' }), await liveCa({ name: 'next' })];
  const taught = [{ der: next.certificateDer, voucher: 'x' }];
  expect(stillAnnounced(taught, { roots: [], voucher: 'x' })).toBe(taught);
  expect(
    stillAnnounced(taught, { roots: [parseCertificate(old.certificateDer)], voucher: 'x' }),
  ).toEqual([]);
});

/** What a server on localhost shows, for these purposes. */
function serverPairOf(ca: TestCa, purposes: readonly string[]): PemPair {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const times = { notBeforeAt: Date.now() - 60_000, notAfterAt: Date.now() + HOUR_MS };
  const leaf = issueLeaf(ca, {
    key: { spkiDer: spkiOf(privateKey) },
    uris: [],
    otherNames: [dnsName('localhost')],
    purposes,
    ...times,
  });
  return {
    chainPem: certificatesPem([leaf]),
    keyPem: Buffer.from(privateKey.export({ type: 'pkcs8', format: 'pem' })),
  };
}
