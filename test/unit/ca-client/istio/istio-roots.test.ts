import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { parseCertificate } from '../../../../agent/identity/certificate';
import { directEngine } from '../../../../agent/identity/direct-engine';
import { createTrustBundle } from '../../../../agent/identity/trust-bundle';
import { caRootSource } from '../../../../agent/trust/ca-root';
import type { SignRequest } from '../../../../ca-client/ca-client';
import {
  extendBundle,
  type LearnedRoot,
  mergeLearned,
  readAnnouncement,
  rootsOfReply,
} from '../../../../ca-client/istio/learned-roots';
import {
  issueLeaf,
  makeTestCa,
  TEST_ID,
  TEST_NOW,
  type TestCa,
  uriAltName,
} from '../../../support/certs';
import { startFakeIstiod } from '../../../support/fake-istio-csr';
import { closing, id, issue, openClient, WorkloadFiles } from '../../../support/istio-world';
import { liveCa, rootsPem } from '../../../support/tls-ca';
import { until } from '../../../support/until';

const bundleOf = (...roots: readonly TestCa[]) =>
  createTrustBundle(roots.map(({ certificateDer }) => certificateDer));
const printOf = ({ certificateDer }: TestCa) => parseCertificate(certificateDer).sha256;

describe('the root of the CA’s server', () => {
  test.each([
    ['SYSTEM means the machine’s', 'SYSTEM', undefined, { kind: 'system' }],
    ['a file that was named comes first', './ca.pem', './prov', { kind: 'file', path: './ca.pem' }],
    [
      'then the one of the provisioning directory',
      undefined,
      './prov',
      { kind: 'file', path: './prov/root-cert.pem' },
    ],
    ['then the mounted one', undefined, undefined, { kind: 'file', path: './mounted.pem' }],
  ])('%s', (_, configured, prov, want) =>
    expect(caRootSource(configured, prov, './mounted.pem')).toEqual(want),
  );
});

describe('the trust bundle', () => {
  test('is its own file, where one is named, whatever the server hangs on', async () => {
    const [mesh, server] = [await liveCa({ name: 'mesh' }), await liveCa({ name: 'server' })];
    const files = new WorkloadFiles().roots(server);
    const { ca } = await openClient(files, {
      address: 'localhost:1',
      trustBundle: files.write('bundle.pem', rootsPem(mesh)),
    });
    expect(ca.trust.value).toEqual(mesh.bundle);
  });

  test.each([
    ['the mounted root', true, 'ca-root.pem', 'mounted'],
    ['else the root of the server, if that is a file', false, 'ca-root.pem', 'server'],
    ['never the machine’s own', false, 'SYSTEM', 'none'],
  ])('is by default %s', async (_, mounted, caRoot, want) => {
    const cas = {
      mounted: await liveCa({ name: 'mounted' }),
      server: await liveCa({ name: 'server' }),
    };
    const files = new WorkloadFiles();
    const path = files.write('ca-root.pem', rootsPem(cas.server));
    if (mounted) files.roots(cas.mounted);
    const { ca } = await openClient(files, {
      address: 'localhost:1',
      caRoot: caRoot === 'SYSTEM' ? caRoot : path,
    });
    expect(ca.trust.value).toEqual(
      want === 'none' ? undefined : cas[want as 'mounted' | 'server'].bundle,
    );
  });

  test('that is not there yet is told as a problem and taken up when it comes; a bad one leaves the last good one', async () => {
    const [root, next] = [await liveCa({ name: 'root' }), await liveCa({ name: 'next' })];
    const files = new WorkloadFiles();
    const { ca, deps } = await openClient(files, { address: 'localhost:1' });
    expect([ca.trust.value, ca.problem()?.code]).toEqual([undefined, 'ERR_CA_UNAVAILABLE']);
    files.roots(root);
    await until('the roots', async () => ca.trust.value?.version === root.bundle.version);
    expect(ca.problem()).toBeUndefined();
    writeFileSync(files.rootPath, 'no roots');
    await until('the complaint', async () => ca.problem());
    expect(ca.trust.value).toEqual(root.bundle);
    expect(deps.events).toContainEqual(
      expect.objectContaining({ event: 'trust bundle file invalid, keeping the previous roots' }),
    );
    files.roots(root, next);
    await until('both roots', async () => ca.trust.value?.rootsDer.length === 2);
  });
});

test('item 24 a root of another trust domain is learned from no reply, unless that domain is listed', async () => {
  const [signer, foreign] = [
    await liveCa(),
    await liveCa({ name: 'old', extraExtensions: [uriAltName('spiffe://old.example')] }),
  ];
  const fake = closing(await startFakeIstiod({ signer, roots: [signer, foreign] }));
  for (const [domains, roots] of [
    [['cluster.local'], 1],
    [['cluster.local', 'old.example'], 2],
  ] as const) {
    const files = new WorkloadFiles().roots(signer).token(fake.token(TEST_ID));
    const { ca } = await openClient(files, {
      address: fake.server.address,
      rootDomains: new Set(domains),
    });
    await issue(ca);
    expect(ca.trust.value!.rootsDer).toHaveLength(roots);
  }
});

describe('a root at the end of a reply', () => {
  const names = ['old', 'next', 'other'] as const;
  const made = Promise.all(names.map((name) => makeTestCa({ name })));

  async function reply(signer: TestCa, after: readonly Uint8Array[], uri = TEST_ID) {
    const key = await directEngine.generateKeyPair('ecdsa-p256');
    const request = { id, csrDer: await directEngine.createCsr(key, id), ttlSeconds: 60 };
    return {
      request,
      ders: [issueLeaf(signer, { key, uris: [uri] }), ...signer.intermediatesDer, ...after],
    };
  }

  function learned(
    ders: readonly Uint8Array[],
    request: SignRequest,
    { bundle }: TestCa,
  ): readonly LearnedRoot[] {
    const announced = readAnnouncement(ders, request, bundle, TEST_NOW);
    return announced ? rootsOfReply(announced, bundle) : [];
  }

  test('is learned where the leaf before it verifies by a root that is trusted', async () => {
    const [old, next] = await made;
    const { request, ders } = await reply(old!, [old!.certificateDer, next!.certificateDer]);
    expect(learned(ders, request, old!)).toEqual([
      { der: next!.certificateDer, voucher: printOf(old!) },
    ]);
  });

  test('is not where it vouches for itself: nobody can add a root who could not have issued our certificate', async () => {
    const [old, next] = await made;
    const { request, ders } = await reply(next!, [next!.certificateDer]);
    expect(learned(ders, request, old!)).toEqual([]);
  });

  test('is not where the leaf is for another identity or another key', async () => {
    const [old, next] = await made;
    const other = await reply(
      old!,
      [next!.certificateDer],
      'spiffe://cluster.local/ns/shop/sa/other',
    );
    expect(learned(other.ders, other.request, old!)).toEqual([]);
    const [a, b] = [await reply(old!, [next!.certificateDer]), await reply(old!, [])];
    expect(learned(a.ders, b.request, old!)).toEqual([]);
  });

  test('is not where it proves to be none: an intermediate as istiod’s RA sends it, or expired', async () => {
    const [old] = await made;
    const intermediate = await makeTestCa({ parent: old });
    const ra = await reply(intermediate, []);
    expect(learned(ra.ders, ra.request, old!)).toEqual([]);
    const dead = await makeTestCa({ name: 'dead', notAfterAt: TEST_NOW - 1_000 });
    const late = await reply(old!, [dead.certificateDer]);
    expect(learned(late.ders, late.request, old!)).toEqual([]);
  });

  test('stays trusted as long as what vouched for it is, and through it what it vouched for', async () => {
    const [old, next, other] = await made;
    const learned: LearnedRoot[] = [
      { der: other!.certificateDer, voucher: printOf(next!) },
      { der: next!.certificateDer, voucher: printOf(old!) },
    ];
    expect(extendBundle(old!.bundle, learned, TEST_NOW)).toEqual(bundleOf(old!, next!, other!));
    expect(extendBundle(next!.bundle, learned, TEST_NOW)).toEqual(bundleOf(next!, other!));
    expect(extendBundle(other!.bundle, learned, TEST_NOW)).toBe(other!.bundle);
  });

  test('is kept once; the oldest go where there are too many', () => {
    const root = (n: number): LearnedRoot => ({ der: Buffer.from([n]), voucher: 'x' });
    const known = [root(1), root(2)];
    expect(mergeLearned(known, [root(2)])).toBe(known);
    expect(
      mergeLearned(
        known,
        Array.from({ length: 32 }, (_, n) => root(n + 10)),
      ),
    ).toHaveLength(32);
  });
});

describe('roots that a CA announces', () => {
  async function rotating() {
    const [old, next] = [await liveCa({ name: 'old' }), await liveCa({ name: 'next' })];
    const fake = closing(await startFakeIstiod({ signer: old, roots: [old, next] }));
    const files = new WorkloadFiles().roots(old).token(fake.token(TEST_ID));
    const stateDir = join(files.dir, 'state');
    mkdirSync(stateDir, { mode: 0o700 });
    return {
      old,
      next,
      fake,
      files,
      stateDir,
      options: { address: fake.server.address, stateDir },
    };
  }

  test('extend the bundle before the certificate is accepted, and survive a restart', async () => {
    const { old, next, files, stateDir, options } = await rotating();
    const first = await openClient(files, options);
    expect((await issue(first.ca)).bundle).toEqual(bundleOf(old, next));
    expect(first.deps.events).toContainEqual(
      expect.objectContaining({ event: 'root learned from the CA' }),
    );
    await first.ca.close();
    const kept = join(stateDir, 'istiod-roots');
    expect(statSync(kept).mode & 0o777).toBe(0o700);
    expect((await openClient(files, options)).ca.trust.value).toEqual(bundleOf(old, next));
  });

  test('go with the root that vouched for them', async () => {
    const { next, files, options } = await rotating();
    const { ca } = await openClient(files, options);
    await issue(ca);
    const other = await liveCa({ name: 'other' });
    files.roots(other);
    await until('the other root', async () => ca.trust.value?.rootsDer.length === 1);
    expect(ca.trust.value).toEqual(other.bundle);
    files.roots(next);
    await until('the next root', async () => ca.trust.value?.version === next.bundle.version);
  });

  test.each([
    ['damaged', '{'],
    ['of another form', '{"roots":[{"der":"AAAA"}]}'],
    ['with what is no root', '{"roots":[{"der":"AAAA","voucher":"x"}]}'],
  ])('that were kept in a file that is %s are forgotten with a warning', async (_, text) => {
    const { old, files, stateDir, options } = await rotating();
    mkdirSync(join(stateDir, 'istiod-roots'));
    writeFileSync(join(stateDir, 'istiod-roots', 'learned-roots.json'), text);
    const { ca, deps } = await openClient(files, options);
    expect(ca.trust.value).toEqual(old.bundle);
    expect(deps.events).toContainEqual(
      expect.objectContaining({ level: 'warn', event: 'stored roots discarded' }),
    );
    await issue(ca);
    await ca.close();
    expect(readFileSync(join(stateDir, 'istiod-roots', 'learned-roots.json'), 'utf8')).toContain(
      'voucher',
    );
  });
});
