import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { type Clock, systemClock } from '../../agent/base/clock';
import {
  certificatesPem,
  parseCertificates,
  parseRootBundle,
} from '../../agent/identity/certificate';
import { isValidAt } from '../../agent/identity/valid-now';
import { writeCaDir } from '../support/ca-dir';
import { type CaWorld, makeRequest, startCaWorld } from '../support/ca-server';
import { HOUR_MS, TEST_ID } from '../support/certs';
import { keyturn } from '../support/command-line';
import { envoyVerdicts, type ProxyPem } from '../support/envoy-verdicts';
import { fetchText } from '../support/fetch-text';
import { describeWith, testWith } from '../support/peers';
import { startPilotAgent } from '../support/pilot-agent';
import { fieldWorlds, type ProxySetWorld } from '../support/proxy-sets';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { liveCa } from '../support/tls-ca';
import { makeTokenIssuer, TEST_ISSUER } from '../support/tokens';
import { until } from '../support/until';

const worlds: CaWorld[] = [];
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.close();
});

/** A CA directory as the world has it. */
function caDirOf({
  signer,
  chainDer,
  rootsDer,
}: Pick<ProxySetWorld, 'signer' | 'chainDer' | 'rootsDer'>): string {
  const dir = join(tempDir(), 'ca');
  const of = (ders: readonly Uint8Array[]) =>
    ders.map((certificateDer) => ({ ...signer, certificateDer }));
  writeCaDir(dir, {
    signer,
    chain: of(chainDer.length === 0 ? [signer.certificateDer] : chainDer),
    roots: of(rootsDer),
  });
  return dir;
}

/** What pilot-agent makes of a reply: all of it is the chain, its last element the roots, sorted. */
async function readAsPilotAgent(world: CaWorld): Promise<ProxyPem> {
  const { key, csrDer } = await makeRequest();
  const reply = await world.client().create(csrDer, { token: await world.joinToken() });
  expect(reply).toMatchObject({ code: 0 });
  const { chain } = reply;
  const keyPem = String(key.privateKey.reveal().export({ type: 'pkcs8', format: 'pem' }));
  const roots = parseCertificates(Buffer.from(chain.at(-1)!), 'roots').map(({ der }) =>
    certificatesPem([der]).toString(),
  );
  return { keyPem, chainPem: chain.join(''), rootsPem: roots.sort().join(''), crlPem: undefined };
}

const HAS_DEAD = /ended|ahead|dead|expired/;

describeWith('envoy')('what ca serve hands to agents that are not ours', () => {
  test('field A1: a real Envoy takes, whatever has ended or not begun in root-cert.pem and cert-chain.pem', async () => {
    const found = (await fieldWorlds()).filter(({ name, lists }) => HAS_DEAD.test(name) && !lists);
    const served: { readonly name: string; readonly pem: ProxyPem }[] = [];
    for (const each of found) {
      const world = await startCaWorld({ dir: caDirOf(each) }).catch(() => undefined);
      if (!world) continue;
      worlds.push(world);
      served.push({ name: each.name, pem: await readAsPilotAgent(world) });
    }
    expect(served.length).toBeGreaterThan(found.length / 2);
    const now = Date.now();
    const isDead = ({ pem }: (typeof served)[number]) =>
      parseCertificates(Buffer.from(pem.chainPem), 'chain').some((each) => !isValidAt(each, now));
    expect(served.filter(isDead)).toEqual([]);
    const taken = await envoyVerdicts(
      tempDir(),
      served.map(({ pem }) => pem),
    );
    expect(served.filter((_, index) => !taken[index]).map(({ name }) => name)).toEqual([]);
  });
});

/** A root with an ended, a future and a shorter copy of itself. */
async function copies() {
  const now = Date.now();
  const live = await liveCa();
  const again = (notBeforeAt: number, notAfterAt: number) =>
    liveCa({ privateKey: live.privateKey, notBeforeAt, notAfterAt });
  const others = [
    await again(now - 9 * HOUR_MS, now - HOUR_MS),
    await again(now + HOUR_MS, now + 9 * HOUR_MS),
    await again(now - HOUR_MS, now + HOUR_MS),
  ];
  return { live, rootsDer: [...others, live].map(({ certificateDer }) => certificateDer) };
}

testWith('pilot-agent', 'envoy')(
  'field A1: pilot-agent gets no root that is dead, or will be beside its living self, nor does its Envoy',
  async () => {
    const issuer = makeTokenIssuer();
    const { live, rootsDer } = await copies();
    const dir = tempDir();
    writeFileSync(join(dir, 'keys.json'), issuer.jwks());
    const believed = [
      '--authenticators',
      'oidc',
      '--oidc-issuer',
      TEST_ISSUER,
      '--jwks',
      'keys.json',
    ];
    const free = [
      '--listen',
      '127.0.0.1:0',
      '--admin-address',
      '127.0.0.1:0',
      '--log-format',
      'json',
    ];
    const caDir = caDirOf({ signer: live, chainDer: [], rootsDer });
    const daemon = testDaemon({
      dir,
      args: [
        'ca',
        'serve',
        ...free,
        '--ca-dir',
        caDir,
        '--trust-domain',
        'cluster.local',
        ...believed,
      ],
    });
    const { address } = await daemon.event('ca server started');
    const token = issuer.token({ claims: { sub: 'system:serviceaccount:shop:cart' } });
    const agent = await startPilotAgent({
      caAddress: String(address),
      rootPem: certificatesPem([live.certificateDer]),
      token,
    });
    const [leaf, roots] = [await agent.secret('default'), await agent.secret('ROOTCA')];
    expect(roots.rootsPem!.trim()).toBe(certificatesPem([live.certificateDer]).toString().trim());
    const pem = {
      keyPem: leaf.keyPem!,
      chainPem: leaf.chainPem!,
      rootsPem: roots.rootsPem!,
      crlPem: undefined,
    };
    expect(await envoyVerdicts(tempDir(), [pem])).toEqual([true]);
    await agent.stop();
  },
);

test('field A1: nor do files and pages that others copy: bundle.pem, bundle.json, ca bundle, the join file', async () => {
  const { live, rootsDer } = await copies();
  const dir = caDirOf({ signer: live, chainDer: [], rootsDer });
  const world = await startCaWorld({ dir, http: { address: '127.0.0.1:0' } });
  worlds.push(world);
  const only = certificatesPem([live.certificateDer]).toString();
  const x5c = [[Buffer.from(live.certificateDer).toString('base64')]];
  const at = `http://${world.server.httpAddress}`;
  const keysOf = (text: string) =>
    JSON.parse(text).keys.map((key: { readonly x5c: unknown }) => key.x5c);
  expect((await fetchText(`${at}/bundle.pem`)).body).toBe(only);
  expect(keysOf((await fetchText(`${at}/bundle.json`)).body)).toEqual(x5c);
  const run = (...args: readonly string[]) => keyturn([...args, '--ca-dir', dir], { cwd: dir });
  expect((await run('ca', 'bundle')).stdout).toBe(only);
  expect(keysOf((await run('ca', 'bundle', '--format', 'spiffe')).stdout)).toEqual(x5c);
  const out = join(tempDir(), 'db.join');
  const id = 'spiffe://cluster.local/db';
  expect(
    await run(
      'vm',
      'bundle',
      '--spiffe-id',
      id,
      '--ca-address',
      'ca.example.org:15012',
      '--out',
      out,
    ),
  ).toMatchObject({ code: 0 });
  expect(JSON.parse(readFileSync(out, 'utf8')).roots).toBe(only);
  const { bundle } = parseRootBundle(readFileSync(join(dir, 'root-cert.pem')), 'roots');
  expect(bundle.rootsDer).toHaveLength(4);
  expect(isValidAt(parseCertificates(Buffer.from(only), 'root')[0]!, Date.now())).toBe(true);
});

test('field A1: a root is in the replies from the moment at which it begins, and not after its end; the register says so', async () => {
  let lead = 0;
  const clock: Clock = {
    now: () => Date.now() + lead,
    sleepUntil: (at, signal) => systemClock.sleepUntil(at - lead, signal),
    onJump: (listener) => systemClock.onJump(listener),
  };
  const second = (inMs: number) => Math.ceil((Date.now() + inMs) / 1_000) * 1_000;
  const [begins, ends] = [second(HOUR_MS), second(2 * HOUR_MS)];
  const live = await liveCa();
  const other = await liveCa({ name: 'other', notBeforeAt: begins, notAfterAt: ends });
  const world = await startCaWorld({
    dir: caDirOf({
      signer: live,
      chainDer: [],
      rootsDer: [live, other].map(({ certificateDer }) => certificateDer),
    }),
    deps: { clock },
  });
  worlds.push(world);
  const handed = async () => (await readAsPilotAgent(world)).rootsPem.match(/BEGIN/g)!.length;
  expect(await handed()).toBe(1);
  lead = HOUR_MS + 1_000;
  expect(await handed()).toBe(2);
  lead = 2 * HOUR_MS + 1_000;
  expect(await handed()).toBe(1);
  const entries = await world.store.issued({}, Date.now());
  const registered = entries
    .filter(({ id }) => id === TEST_ID)
    .sort((a, b) => a.issuedAt - b.issuedAt);
  expect(registered.map(({ handedRoots }) => handedRoots!.length)).toEqual([1, 2, 1]);
});

test('field A1: an agent whose file of roots holds a dead copy of what its CA shows is let in by the living one', async () => {
  const now = Date.now();
  const root = await liveCa();
  const signer = await liveCa({ parent: root });
  const dead = await liveCa({
    parent: root,
    privateKey: signer.privateKey,
    notBeforeAt: now - 9 * HOUR_MS,
    notAfterAt: now - HOUR_MS,
  });
  const world = await startCaWorld({
    dir: caDirOf({ signer, chainDer: [signer.certificateDer], rootsDer: [root.certificateDer] }),
  });
  worlds.push(world);
  const dir = tempDir();
  writeFileSync(
    join(dir, 'roots.pem'),
    certificatesPem([dead, root].map(({ certificateDer }) => certificateDer)),
  );
  writeFileSync(join(dir, 'token'), await world.joinToken());
  const trusted = [
    '--ca',
    'istiod',
    '--ca-address',
    world.server.address,
    '--ca-root',
    'roots.pem',
    '--token',
    'token',
  ];
  const daemon = testDaemon({
    dir,
    args: [
      'run',
      ...trusted,
      '--namespace',
      'shop',
      '--service-account',
      'cart',
      '--log-format',
      'json',
    ],
  });
  await until(
    'a certificate',
    async () => (await daemon.status().catch(() => undefined))?.workloads[0]?.state === 'current',
  );
  expect(world.issued()).toBe(1);
});

test('field A8: more roots than a handshake can name do not keep callers away', async () => {
  const many = (await fieldWorlds()).find(({ name }) => name === 'field A8 701 roots')!;
  const world = await startCaWorld({ dir: caDirOf(many) });
  worlds.push(world);
  const { csrDer } = await makeRequest();
  expect(await world.client().create(csrDer, { token: await world.joinToken() })).toMatchObject({
    code: 0,
  });
});
