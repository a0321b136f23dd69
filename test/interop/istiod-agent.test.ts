import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { parseCertificates } from '../../agent/identity/certificate';
import { writeCaDir } from '../support/ca-dir';
import { type CertificateWatch, watchCertificates } from '../support/certificate-watch';
import type { TestCa } from '../support/certs';
import { type Daemon, type DaemonOptions, startDaemon } from '../support/daemon';
import { cacertsDir, ISTIOD_NAME, type Istiod, mountedRoot, startIstiod } from '../support/istiod';
import { type Kube, startKube } from '../support/kube';
import { describeWith } from '../support/peers';
import { tokenUntil } from '../support/service-account-token';
import { tempDir } from '../support/temp-dir';
import { liveCa } from '../support/tls-ca';
import { until } from '../support/until';

const LIFE_MS = 10_000;
const TTL = `${LIFE_MS / 1_000}s`;
const [ROOT, TOKEN] = ['var/run/secrets/istio/root-cert.pem', 'var/run/secrets/tokens/istio-token'];

describeWith('kube', 'istiod')(`an agent with certificates of ${TTL} from a real istiod`, () => {
  let kube: Kube;
  const running: { stop(): Promise<unknown> }[] = [];
  const watches: CertificateWatch[] = [];
  beforeAll(async () => {
    kube = await startKube();
    await kube.namespace('shop', 'cart');
  });
  afterEach(async () => {
    for (const watch of watches.splice(0)) watch.close();
    for (const each of running.splice(0).reverse()) await each.stop();
  });
  afterAll(() => kube?.stop());

  async function run(options: Parameters<typeof startIstiod>[1] = {}): Promise<Istiod> {
    const istiod = await startIstiod(kube, options);
    running.push(istiod);
    return istiod;
  }

  /** A pod's directory, with what a kubelet mounts. */
  async function pod(token?: string): Promise<string> {
    const dir = tempDir();
    mount(dir, ROOT, await mountedRoot(kube, 'shop'));
    mount(dir, TOKEN, token ?? (await kube.token('shop', 'cart', { audiences: ['istio-ca'] })));
    return dir;
  }

  /** What is mounted once that is these roots: istiod writes it a moment after it has taken them up. */
  async function mounted(...roots: readonly TestCa[]): Promise<string> {
    const wanted = roots
      .map(({ certificateDer }) => Buffer.from(certificateDer).toString('base64'))
      .sort();
    const found = (pem: string) =>
      parseCertificates(Buffer.from(pem), 'mounted')
        .map(({ der }) => Buffer.from(der).toString('base64'))
        .sort();
    return until('the mounted roots', async () => {
      const pem = await mountedRoot(kube, 'shop');
      return found(pem).join() === wanted.join() && pem;
    });
  }

  function start(
    dir: string,
    istiod: Istiod,
    options: Partial<DaemonOptions> = {},
  ): { agent: Daemon; proxy: CertificateWatch } {
    const { flags = [], ...others } = options;
    const source = [
      '--ca',
      'istiod',
      '--ca-address',
      istiod.address,
      '--ca-server-name',
      ISTIOD_NAME,
    ];
    const agent = startDaemon({
      dir,
      source,
      flags: flags.includes('--ttl') ? flags : ['--ttl', TTL, ...flags],
      ...others,
    });
    const proxy = watchCertificates(agent.sdsSocket);
    running.push(agent);
    watches.push(proxy);
    return { agent, proxy };
  }

  test('lives on its service account token, and on its own certificate when that is gone', async () => {
    const istiod = await run();
    const dir = await pod();
    const { agent, proxy } = start(dir, istiod);
    await agent.ready();
    await proxy.next();
    rmSync(join(dir, TOKEN));
    await proxy.next({ count: 3, ms: 3 * LIFE_MS });
    expect(proxy.gaps()).toEqual([]);
  });

  test('bridges an istiod that is away for 40 % of the life of a certificate', async () => {
    const lifeMs = 2 * LIFE_MS;
    const istiod = await run();
    const { proxy } = start(await pod(), istiod, { flags: ['--ttl', `${lifeMs / 1_000}s`] });
    await until('a certificate', async () => proxy.seen.length > 0);
    // Away from just before the renewal on.
    await pause(0.4 * lifeMs);
    await istiod.stop();
    await pause(0.4 * lifeMs);
    expect(proxy.seen).toHaveLength(1);
    await run({ port: istiod.port });
    await proxy.next({ count: 2, ms: 2 * lifeMs });
    expect(proxy.gaps()).toEqual([]);
  });

  test.each([
    [
      'that has expired',
      () => tokenUntil(kube, 'shop', 'cart', Date.now() - 120_000),
      /expired at .* and was not replaced/,
    ],
    [
      'that is for another audience',
      () => kube.token('shop', 'cart', { audiences: ['vault'] }),
      /answered UNAUTHENTICATED/,
    ],
  ])('tells of a token %s, and takes the next one within a minute', async (_, token, reason) => {
    const istiod = await run();
    const dir = await pod(await token());
    const { agent, proxy } = start(dir, istiod);
    await agent.event('no certificate yet, retrying');
    const { reasons } = await until('the status', () => agent.status().catch(() => undefined));
    expect(reasons.join()).toMatch(reason);
    mount(dir, TOKEN, await kube.token('shop', 'cart', { audiences: ['istio-ca'] }));
    await until('a certificate', async () => proxy.seen.length > 0);
  });

  test('on a machine that boots again without a token proves itself by the certificate that it keeps, and goes on replacing that', async () => {
    const istiod = await run();
    const dir = await pod();
    // Who sets up the machine puts the root of the mesh there.
    mount(dir, 'etc/certs/root-cert.pem', await mountedRoot(kube, 'shop'));
    const env = { PROV_CERT: './etc/certs', OUTPUT_CERTS: './etc/certs' };
    const first = start(dir, istiod, { env });
    await first.agent.event('certificate files written');
    await first.agent.stop();
    rmSync(join(dir, TOKEN));
    const again = start(dir, istiod, { env });
    await again.proxy.next({ count: 3, ms: 3 * LIFE_MS });
    const { serial } = again.proxy.seen.at(-1)!.leaf;
    await until('the files', async () => leafOf(join(dir, 'etc/certs/cert-chain.pem')) === serial);
    expect(again.proxy.gaps()).toEqual([]);
  });

  test('proves itself by a provisioned certificate of long life, and leaves that as it is', async () => {
    const istiod = await run();
    const dir = await pod();
    const giver = start(dir, istiod, { flags: ['--ttl', '24h', '--output-certs', 'prov'] });
    await giver.agent.event('certificate files written');
    await giver.agent.stop();
    rmSync(join(dir, TOKEN));
    const files = ['key.pem', 'cert-chain.pem', 'root-cert.pem'].map((name) =>
      join(dir, 'prov', name),
    );
    const before = files.map((file) => readFileSync(file, 'utf8'));
    const { proxy } = start(dir, istiod, { flags: ['--prov-cert', 'prov'] });
    await proxy.next({ count: 3, ms: 3 * LIFE_MS });
    expect(files.map((file) => readFileSync(file, 'utf8'))).toEqual(before);
    expect(proxy.gaps()).toEqual([]);
  });

  test('follows a change of roots, in stages, without a moment in which peers would not believe each other', async () => {
    const [old, next] = [await authority('old'), await authority('new')];
    const dir = tempDir();
    writeCaDir(cacertsDir(dir), { signer: old.signer, roots: [old.root] });
    const istiod = await run({ dir, env: { ISTIO_MULTIROOT_MESH: 'true' } });
    await mounted(old.root);
    const place = await pod();
    const { proxy } = start(place, istiod);
    await until('a certificate', async () => proxy.seen.length > 0);
    expect(proxy.seen[0]!.leaf.issuer).toBe('O=cluster.local, CN=old intermediate');

    writeCaDir(cacertsDir(dir), { roots: [old.root, next.root] });
    mount(place, ROOT, await mounted(old.root, next.root));
    await until('both roots', async () => (await proxy.roots()).length === 2);

    writeCaDir(cacertsDir(dir), { signer: next.signer });
    const changed = await proxy.next({
      where: ({ leaf }) => leaf.issuer === 'O=cluster.local, CN=new intermediate',
      ms: 2 * LIFE_MS,
    });
    expect(changed.chain.map(({ subject }) => subject)).toEqual([
      '',
      'O=cluster.local, CN=new intermediate',
    ]);

    writeCaDir(cacertsDir(dir), { roots: [next.root] });
    mount(place, ROOT, await mounted(next.root));
    await until(
      'one root',
      async () =>
        (await proxy.roots()).map(({ subject }) => subject).join() ===
        'O=cluster.local, CN=new root',
    );
    await proxy.next({ ms: 2 * LIFE_MS });
    expect(proxy.gaps()).toEqual([]);
  });

  test('comes back when istiod has come back with another root altogether', async () => {
    const [old, next] = [await authority('old'), await authority('new')];
    const dir = tempDir();
    writeCaDir(cacertsDir(dir), { signer: old.signer, roots: [old.root] });
    const istiod = await run({ dir });
    await mounted(old.root);
    const place = await pod();
    const { agent, proxy } = start(place, istiod);
    await until('a certificate', async () => proxy.seen.length > 0);
    await istiod.stop();
    writeCaDir(cacertsDir(dir), { signer: next.signer, roots: [next.root] });
    await run({ dir, port: istiod.port });
    await agent.event(/^renewal failed/);
    mount(place, ROOT, await mounted(next.root));
    const issuer = 'O=cluster.local, CN=new intermediate';
    await until('a certificate of the new root', async () =>
      proxy.seen.some(({ leaf }) => leaf.issuer === issuer),
    );
  });
});

function mount(dir: string, path: string, content: string): void {
  mkdirSync(dirname(join(dir, path)), { recursive: true });
  writeFileSync(join(dir, path), content);
}

const pause = (ms: number) => new Promise((done) => setTimeout(done, ms));
const leafOf = (file: string) => parseCertificates(readFileSync(file), file)[0]!.serial;

async function authority(name: string): Promise<{ root: TestCa; signer: TestCa }> {
  const root = await liveCa({ name: `${name} root` });
  return { root, signer: await liveCa({ name: `${name} intermediate`, parent: root }) };
}
