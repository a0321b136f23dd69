import { once } from 'node:events';
import { renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterEach, expect } from '@jest/globals';
import { type Daemon, startDaemon } from '../support/daemon';
import { type Envoy, startEnvoy } from '../support/envoy';
import { clientConfig, type SecretNames, serverConfig } from '../support/envoy-config';
import { fetchText } from '../support/fetch-text';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { until } from '../support/until';

const idOf = (trustDomain: string) => `spiffe://${trustDomain}/ns/shop/sa/cart`;
const namesOf = (trustDomain: string, roots = 'ALL'): SecretNames => ({
  identity: idOf(trustDomain),
  roots,
});

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

interface Side {
  readonly trustDomain: string;
  readonly agent: Daemon;
  /** Where the others read its bundle. */
  readonly bundle: string;
}

/** An agent with an authority of its own, which believes `friends`. */
async function startSide(
  trustDomain: string,
  bundleOf: (trustDomain: string) => string,
  friends: readonly string[],
): Promise<Side> {
  const dir = tempDir();
  const identity = [
    '--trust-domain',
    trustDomain,
    '--namespace',
    'shop',
    '--service-account',
    'cart',
  ];
  const agent = startDaemon({
    dir,
    identity,
    flags: friends.flatMap((each) => ['--federated-bundle', `${each}=${bundleOf(each)}`]),
  });
  closing.push(() => agent.stop());
  await agent.ready();
  const bundle = bundleOf(trustDomain);
  const { stdout } = await agent.command('ca', 'bundle', '--format', 'spiffe');
  replace(bundle, stdout);
  return { trustDomain, agent, bundle };
}

function replace(path: string, text: string): void {
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}

async function startClient(
  side: Side,
  port: number,
  server: string,
  secrets: SecretNames,
): Promise<{ readonly envoy: Envoy; ask(): Promise<number> }> {
  const config = clientConfig({ sds: { socket: side.agent.sdsSocket }, port, server, secrets });
  const envoy = await startEnvoy({ dir: side.agent.dir, name: `client-${closing.length}`, config });
  closing.push(() => envoy.stop());
  const app = await envoy.port('app');
  // Its listener listens once it has its secrets.
  const ask = async () =>
    (await fetchText(`http://127.0.0.1:${app}/`).catch(() => ({ status: 0 }))).status;
  return { envoy, ask };
}

testWith('envoy')(
  'two trust domains speak mutual TLS by SPIFFE names; a third that nobody federated with is refused, and so is one that took its keys back',
  async () => {
    const bundles = tempDir();
    const bundleOf = (trustDomain: string) => join(bundles, `${trustDomain}.json`);
    const [one, two, three] = await Promise.all([
      startSide('one.example', bundleOf, ['two.example']),
      startSide('two.example', bundleOf, ['one.example']),
      startSide('three.example', bundleOf, ['one.example']),
    ]);
    await one.agent.event('federated bundle in use');
    await two.agent.event('federated bundle in use');
    const server = await startEnvoy({
      dir: one.agent.dir,
      name: 'server',
      config: serverConfig({
        friends: {
          sds: { socket: one.agent.sdsSocket },
          allow: idOf(two.trustDomain),
          secrets: namesOf(one.trustDomain),
        },
        // Its own trust domain alone, as SPIRE names it.
        own: {
          sds: { socket: one.agent.sdsSocket },
          allow: idOf(two.trustDomain),
          secrets: namesOf(one.trustDomain, 'spiffe://one.example'),
        },
      }),
    });
    closing.push(() => server.stop());
    const id = idOf(one.trustDomain);
    const friend = await startClient(
      two,
      await server.port('friends'),
      id,
      namesOf(two.trustDomain),
    );
    await until('a request of the other trust domain', async () => (await friend.ask()) === 200);
    // Names of one trust domain: the friend's certificate is right, but not for this listener.
    const toOwn = await startClient(
      two,
      await server.port('own'),
      id,
      namesOf(two.trustDomain, 'spiffe://one.example'),
    );
    await until(
      'the answer of a listener for its own trust domain',
      async () => (await toOwn.ask()) === 503,
    );
    // By its roots, before anybody looks at its name.
    const refusals = () => server.sum(/^listener\.friends\.ssl\.fail_verify_error$/);
    const stranger = await startClient(
      three,
      await server.port('friends'),
      id,
      namesOf(three.trustDomain),
    );
    await until('a refusal', async () => (await stranger.ask()) === 503 && (await refusals()) > 0);
    expect(await server.sum(/^sds\..*\.update_rejected$/)).toBe(0);

    replace(two.bundle, '{"keys":[]}');
    await until('the friend is refused', async () => (await friend.ask()) === 503);
    expect(await server.sum(/^sds\..*\.update_rejected$/)).toBe(0);
  },
);

testWith('envoy')(
  'Envoys with our bootstrap for ALL call each other across trust domains, each by the names that it was told',
  async () => {
    const bundles = tempDir();
    const bundleOf = (trustDomain: string) => join(bundles, `${trustDomain}.json`);
    const [one, two] = await Promise.all([
      startSide('one.example', bundleOf, ['two.example']),
      startSide('two.example', bundleOf, ['one.example']),
    ]);
    const app = createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1');
    await once(app, 'listening');
    closing.push(async () => app.close());
    const serves = [
      '--listen',
      '127.0.0.1:0',
      '--app',
      `127.0.0.1:${(app.address() as AddressInfo).port}`,
    ];
    const open = await startFromBootstrap(one, [
      '--validation-context',
      'ALL',
      ...serves,
      '--caller',
      idOf('two.example'),
    ]);
    const shut = await startFromBootstrap(one, ['--validation-context', 'ALL', ...serves]);
    const caller = async (server: Envoy, flags: readonly string[]) => {
      const peer = [
        '--peer',
        `127.0.0.1:${await server.port('inbound')}`,
        '--peer-id',
        idOf('one.example'),
        '--peer-listen',
        '127.0.0.1:0',
      ];
      const envoy = await startFromBootstrap(two, [...flags, ...peer]);
      const port = await envoy.port('outbound');
      const ask = async () =>
        (await fetchText(`http://127.0.0.1:${port}/`).catch(() => ({ status: 0 }))).status;
      return { envoy, ask };
    };
    const friend = await caller(open, ['--validation-context', 'ALL']);
    await until('a request of the other trust domain', async () => (await friend.ask()) === 200);
    const unnamed = await caller(shut, ['--validation-context', 'ALL']);
    await until('the refusal of one that was not named', async () => (await unnamed.ask()) === 503);
    // Without it a peer is judged by our own roots, whatever name it is called by.
    const narrow = await caller(open, []);
    await until('the refusal of foreign roots', async () => (await narrow.ask()) === 503);
    expect(await narrow.envoy.sum(/^cluster\.peer\.ssl\.fail_verify_error$/)).toBeGreaterThan(0);
  },
);

/** An Envoy as `keyturn bootstrap` makes it. */
async function startFromBootstrap(
  { agent, trustDomain }: Side,
  flags: readonly string[],
): Promise<Envoy> {
  const made = await agent.command(
    'bootstrap',
    '--trust-domain',
    trustDomain,
    '--sds-socket',
    agent.sdsSocket,
    '--admin',
    '127.0.0.1:0',
    ...flags,
  );
  const envoy = await startEnvoy({
    dir: agent.dir,
    name: `bootstrap-${closing.length}`,
    config: JSON.parse(made.stdout),
  });
  closing.push(() => envoy.stop());
  return envoy;
}
