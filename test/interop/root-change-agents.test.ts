import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from '@jest/globals';
import { parseCertificate, parseCertificates } from '../../agent/identity/certificate';
import { keyturn } from '../support/command-line';
import type { Daemon } from '../support/daemon';
import { runGospiffe, startGospiffe } from '../support/gospiffe';
import { publishLikeKubelet } from '../support/mounted-files';
import { testWith } from '../support/peers';
import { startPilotAgent } from '../support/pilot-agent';
import { caOf, type RootChange } from '../support/root-change';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { makeTokenIssuer, TEST_ISSUER } from '../support/tokens';
import { until } from '../support/until';

const issuer = makeTokenIssuer();

/** An authority that believes join tokens, service account tokens and its own certificates. */
async function authority(): Promise<RootChange> {
  const keys = join(tempDir(), 'keys.json');
  writeFileSync(keys, issuer.jwks());
  const believed = [
    '--authenticators',
    'client-certificate,join-token,oidc',
    '--oidc-issuer',
    TEST_ISSUER,
    '--jwks',
    keys,
  ];
  return caOf(...believed);
}

const idOf = (name: string) => `spiffe://example.org/ns/shop/sa/${name}`;
const flagsOf = (name: string) => [
  '--trust-domain',
  'example.org',
  '--namespace',
  'shop',
  '--service-account',
  name,
];

/** The ways to an agent, each with a copy of the root of before the change. */
const KINDS: Readonly<
  Record<string, (change: RootChange, dir: string) => Promise<readonly string[]>>
> = {
  recipe: async ({ address, copies, token }, dir) => {
    copyFileSync(copies.old!, join(dir, 'root-cert.pem'));
    writeFileSync(join(dir, 'token'), await token(idOf('recipe')));
    return [
      '--ca',
      'istiod',
      '--ca-address',
      address,
      '--ca-root',
      'root-cert.pem',
      '--token',
      'token',
      '--state-dir',
      './state',
    ];
  },
  joined: async ({ address, command }, dir) => {
    const file = join(dir, 'x.join');
    await command(
      'vm',
      'bundle',
      '--spiffe-id',
      idOf('joined'),
      '--ca-address',
      address,
      '--out',
      file,
    );
    mkdirSync(join(dir, 'etc/keyturn'), { recursive: true });
    copyFileSync(
      join(__dirname, '../../scripts/deploy/machine/keyturn.yaml'),
      join(dir, 'etc/keyturn/keyturn.yaml'),
    );
    expect(await keyturn(['vm', 'join', 'x.join', '--root', dir], { cwd: dir })).toMatchObject({
      code: 0,
    });
    // As the package has it, but for where it is.
    const here = [
      '--sds-socket',
      'var/run/secrets/workload-spiffe-uds/socket',
      '--control-socket',
      'var/run/keyturn/control.sock',
    ];
    const places = [
      '--ca-root',
      'etc/keyturn/root-cert.pem',
      '--token',
      'etc/credstore/keyturn.join-token',
      '--state-dir',
      './state',
    ];
    return ['--config', 'etc/keyturn/keyturn.yaml', ...places, ...here];
  },
  pod: async ({ address, copies }, dir) => {
    publishLikeKubelet(join(dir, 'var/run/secrets/istio'), {
      'root-cert.pem': readFileSync(copies.old!),
    });
    mkdirSync(join(dir, 'var/run/secrets/tokens'));
    const claims = { sub: 'system:serviceaccount:shop:pod' };
    writeFileSync(join(dir, 'var/run/secrets/tokens/istio-token'), issuer.token({ claims }));
    return ['--ca', 'istiod', '--ca-address', address];
  },
  provisioned: async ({ address, copies, token }, dir) => {
    mkdirSync(join(dir, 'certs'));
    copyFileSync(copies.old!, join(dir, 'certs/root-cert.pem'));
    writeFileSync(join(dir, 'token'), await token(idOf('provisioned')));
    const asking = ['--ca', 'istiod', '--ca-address', address, '--prov-cert', './certs'];
    const first = testDaemon({
      dir,
      source: asking,
      identity: flagsOf('provisioned'),
      flags: ['--token', 'token', '--output-certs', './out'],
    });
    await first.event('certificate files written');
    await first.stop();
    for (const name of ['key.pem', 'cert-chain.pem'])
      copyFileSync(join(dir, 'out', name), join(dir, 'certs', name));
    return [...asking, '--state-dir', './state'];
  },
  builtin: async ({ dir }) => ['--ca', 'builtin', '--ca-dir', join(dir, 'ca')],
};

interface Agent {
  readonly name: string;
  readonly dir: string;
  daemon: Daemon;
  restart(): Promise<void>;
}

async function startAgent(name: string, change: RootChange): Promise<Agent> {
  const dir = tempDir();
  const source = await KINDS[name]!(change, dir);
  const start = () => testDaemon({ dir, source, identity: name === 'joined' ? [] : flagsOf(name) });
  const agent: Agent = {
    name,
    dir,
    daemon: start(),
    restart: async () => {
      await agent.daemon.kill('SIGKILL');
      agent.daemon = start();
      await agent.daemon.ready();
    },
  };
  await agent.daemon.ready();
  return agent;
}

/** go-spiffe, a client of each agent's Workload API: each program speaks mutual TLS with the next one's, in turn, for its patience is short. */
async function assertMutual(agents: readonly Agent[]): Promise<void> {
  for (const [at, { daemon, name }] of agents.entries()) {
    const server = startGospiffe(daemon.sdsSocket, ['serve']);
    const { address } = await server.next();
    const next = agents[(at + 1) % agents.length]!;
    const { facts, stderr } = await runGospiffe(next.daemon.sdsSocket, ['dial', String(address)]);
    expect({ facts, stderr }).toEqual({
      facts: [{ server: idOf(name), greeting: `hello ${idOf(next.name)}` }],
      stderr: '',
    });
    expect(await server.next()).toEqual({ peer: idOf(next.name) });
    await server.stop();
  }
}

async function renew(agents: readonly Agent[]): Promise<void> {
  const answers = await Promise.all(agents.map(({ daemon }) => daemon.command('rotate')));
  expect(answers.map(({ stderr }) => stderr)).toEqual(agents.map(() => ''));
}

const rootsOf = async ({ daemon }: Agent) => (await daemon.status()).workloads[0]!.roots.length;

testWith('gospiffe')(
  'field 14 a root is changed, and no agent loses its identity or its peers, whatever copy of the root it has',
  async () => {
    const change = await authority();
    const agents = await Promise.all(Object.keys(KINDS).map((name) => startAgent(name, change)));
    const asking = agents.filter(({ name }) => name !== 'builtin');
    await assertMutual(agents);

    await change.add();
    const early = await keyturn(
      ['ca', 'root', 'activate', change.ids[0]!, '--overlap', '0', '--ca-dir', './ca'],
      { cwd: change.dir },
    );
    expect(early).toMatchObject({
      code: 75,
      stderr: expect.stringContaining(`${asking.length} identities have not received its root`),
    });
    const listed = await change.command('ca', 'root', 'list');
    for (const { name } of asking) expect(listed).toContain(`  ${idOf(name)}  `);
    await renew(agents);
    for (const each of agents)
      await until(`both roots of ${each.name}`, async () => (await rootsOf(each)) === 2);

    await change.activate();
    await assertMutual(agents);
    // Neighbours are of two roots now.
    await renew(agents.filter((_, at) => at % 2 === 0));
    await assertMutual(agents);
    await renew(agents);
    await assertMutual(agents);
    await Promise.all(agents.map((each) => each.restart()));

    // A cluster writes the ConfigMap anew. The copies on machines stay as they are.
    const all = readFileSync(join(change.dir, 'ca/root-cert.pem'));
    publishLikeKubelet(
      join(agents.find(({ name }) => name === 'pod')!.dir, 'var/run/secrets/istio'),
      { 'root-cert.pem': all },
    );
    await change.retire('--force');
    await renew(agents);
    await assertMutual(agents);
    await Promise.all(agents.map((each) => each.restart()));
    await renew(agents);
  },
);

testWith('pilot-agent')(
  'field 14 nor does pilot-agent: it renews by a copy of the old root until that is retired',
  async () => {
    const change = await authority();
    const claims = { sub: 'system:serviceaccount:shop:cart' };
    const env = { TRUST_DOMAIN: 'example.org', SECRET_TTL: '6s', SECRET_GRACE_PERIOD_RATIO: '0.5' };
    const pod = (root: string) =>
      startPilotAgent({
        caAddress: change.address,
        rootPem: readFileSync(root),
        token: issuer.token({ claims }),
        env,
      });
    const agent = await pod(change.copies.old!);
    const issuedBy = async () => {
      const [leaf] = parseCertificates(
        Buffer.from((await agent.secret('default')).chainPem!),
        'chain',
      );
      return Buffer.from(leaf!.authorityKeyId!).toString('hex');
    };
    const first = await issuedBy();
    await change.add();
    const [added] = parseCertificates(readFileSync(change.copies.new!), 'root');
    const next = Buffer.from(parseCertificate(added!.der).subjectKeyId!).toString('hex');
    await until('both roots', async () => {
      const { rootsPem } = await agent.secret('ROOTCA');
      return parseCertificates(Buffer.from(rootsPem!), 'roots').length === 2;
    });
    await change.activate();
    await until('a certificate of the new root', async () => (await issuedBy()) === next);
    expect(next).not.toBe(first);
    await change.retire('--force');
    // Its ConfigMap has the new root by then, as ca root add said.
    const later = await pod(change.copies.new!);
    expect((await later.secret('default')).chainPem).toContain('BEGIN CERTIFICATE');
    await later.stop();
    await agent.stop();
  },
);
