import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect } from '@jest/globals';
import { type Daemon, startDaemon } from '../support/daemon';
import { runGospiffe, startGospiffe } from '../support/gospiffe';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';

const ID = 'spiffe://cluster.local/ns/shop/sa/cart';
const daemons: Daemon[] = [];

const start = async (flags: readonly string[] = [], trustDomain = 'cluster.local') => {
  const identity = [
    '--trust-domain',
    trustDomain,
    '--namespace',
    'shop',
    '--service-account',
    'cart',
  ];
  const daemon = startDaemon({ dir: tempDir(), flags, identity });
  daemons.push(daemon);
  await daemon.ready();
  return daemon;
};

afterEach(async () => {
  for (const daemon of daemons.splice(0)) await daemon.stop();
});

testWith('gospiffe')(
  'go-spiffe gets the certificate, verifies it, and sees each rotation',
  async () => {
    const daemon = await start(['--svid-hint', 'internal']);
    const source = startGospiffe(daemon.sdsSocket, ['x509', '3']);
    const serialNow = async () =>
      (await daemon.status()).workloads[0]!.certificate!.serial.replace(/^0+/, '');
    expect(await source.next()).toEqual({ id: ID, serial: await serialNow(), hint: 'internal' });
    for (let turn = 0; turn < 2; turn += 1) {
      await daemon.command('rotate');
      expect(await source.next()).toEqual({ id: ID, serial: await serialNow(), hint: 'internal' });
    }
    expect((await source.stop()).code).toBe(0);
  },
);

testWith('gospiffe')('go-spiffe comes again after a restart of the agent, by itself', async () => {
  const daemon = await start();
  const source = startGospiffe(daemon.sdsSocket, ['x509', '2']);
  const first = await source.next();
  await daemon.stop();
  const again = startDaemon({ dir: daemon.dir });
  daemons.push(again);
  const second = await source.next();
  expect(second.id).toBe(ID);
  expect(second.serial).not.toBe(first.serial);
});

testWith('gospiffe')(
  'two programs speak mutual TLS with the identities of their agents',
  async () => {
    const [one, other] = await Promise.all([start(), start()]);
    const server = startGospiffe(one.sdsSocket, ['serve']);
    const { address } = await server.next();
    const { facts } = await runGospiffe(one.sdsSocket, ['dial', String(address)]);
    expect(facts).toEqual([{ server: ID, greeting: `hello ${ID}` }]);
    expect(await server.next()).toEqual({ peer: ID });
    // The same trust domain by name, of another root.
    const stranger = await runGospiffe(other.sdsSocket, ['dial', String(address)]);
    expect(stranger.code).toBe(1);
    expect(await server.next()).toHaveProperty('refused');
    await server.stop();
  },
);

testWith('gospiffe')(
  'a program of another trust domain is let in where its bundle is believed, and nowhere else',
  async () => {
    const foreign = await start([], 'other.example');
    const roots = join(foreign.dir, 'var/lib/keyturn/ca/root-cert.pem');
    const friendly = await start(['--federated-bundle', `other.example=${roots}`]);
    await friendly.event('federated bundle in use');
    const { facts } = await runGospiffe(friendly.sdsSocket, ['bundles']);
    expect(facts).toContainEqual(
      expect.objectContaining({ trustDomain: 'other.example', x509: 1, jwt: 0 }),
    );
    expect(facts).toContainEqual(
      expect.objectContaining({ trustDomain: 'cluster.local', x509: 1, jwt: 1 }),
    );
    const server = startGospiffe(friendly.sdsSocket, ['serve']);
    const { address } = await server.next();
    // The foreigner does not believe us: the relationship has one direction.
    await runGospiffe(foreign.sdsSocket, ['dial', String(address)]);
    expect(await server.next()).toEqual({ refused: expect.stringContaining('bad certificate') });
    const back = await start(
      [
        '--federated-bundle',
        `cluster.local=${join(friendly.dir, 'var/lib/keyturn/ca/root-cert.pem')}`,
      ],
      'third.example',
    );
    await back.event('federated bundle in use');
    // It believes us, and is not believed.
    expect((await runGospiffe(back.sdsSocket, ['dial', String(address)])).code).toBe(1);
    expect(String((await server.next()).refused)).toMatch(/third\.example/);
    await server.stop();
  },
);

testWith('gospiffe')(
  'go-spiffe gets tokens for its audiences, and verifies those of others, of another trust domain too',
  async () => {
    const foreign = await start(['--jwt-svid-ttl', '1m'], 'other.example');
    const theirs = await runGospiffe(foreign.sdsSocket, ['jwt', 'shop', 'bank']);
    expect(theirs).toMatchObject({ code: 0, stderr: '' });
    expect(theirs.facts[0]).toMatchObject({
      id: 'spiffe://other.example/ns/shop/sa/cart',
      audience: ['shop', 'bank'],
    });
    expect(Number(theirs.facts[0]!.lifetime)).toBeGreaterThan(50);
    expect(Number(theirs.facts[0]!.lifetime)).toBeLessThanOrEqual(60);

    const bundle = join(foreign.dir, 'bundle.json');
    writeFileSync(bundle, (await foreign.command('ca', 'bundle', '--format', 'spiffe')).stdout);
    const ours = await start(['--federated-bundle', `other.example=${bundle}`]);
    await ours.event('federated bundle in use');
    const validate = async (audience: string, token: unknown) =>
      (await runGospiffe(ours.sdsSocket, ['validate', audience], String(token))).facts[0]!;
    const { token } = theirs.facts[0]!;
    expect(await validate('shop', token)).toEqual({
      workloadApi: 'spiffe://other.example/ns/shop/sa/cart',
      gospiffe: 'spiffe://other.example/ns/shop/sa/cart',
    });
    // Both refuse the same.
    const own = (await runGospiffe(ours.sdsSocket, ['jwt', 'shop'])).facts[0]!.token;
    expect(await validate('shop', own)).toEqual({ workloadApi: ID, gospiffe: ID });
    for (const [audience, wrong] of [
      ['till', token],
      ['shop', `${String(token).slice(0, -4)}AAAA`],
      ['shop', 'a.b.c'],
    ] as const) {
      const { workloadApi, gospiffe } = await validate(audience, wrong);
      expect(workloadApi).toMatch(/InvalidArgument/);
      expect(gospiffe).toMatch(/^jwtsvid: |audience/);
    }
    const stranger = await runGospiffe(foreign.sdsSocket, ['validate', 'shop'], String(own));
    expect(stranger.facts[0]).toEqual({
      workloadApi: expect.stringMatching(/cluster\.local/),
      gospiffe: expect.stringMatching(/no bundle found/),
    });
  },
);

testWith('gospiffe')(
  'agents of one CA directory verify each other’s tokens, from the first on',
  async () => {
    const caDir = join(tempDir(), 'ca');
    const [one, other] = await Promise.all([
      start(['--ca-dir', caDir]),
      start(['--ca-dir', caDir]),
    ]);
    // The other has its keys open before the first token is signed, or makes them at the same time.
    const [, { facts }] = await Promise.all([
      runGospiffe(other.sdsSocket, ['bundles']),
      runGospiffe(one.sdsSocket, ['jwt', 'shop']),
    ]);
    const verdict = await runGospiffe(
      other.sdsSocket,
      ['validate', 'shop'],
      String(facts[0]!.token),
    );
    expect(verdict.facts).toEqual([{ workloadApi: ID, gospiffe: ID }]);
  },
);
