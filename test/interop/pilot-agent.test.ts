import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { loadConfig } from '../../agent/config/load';
import { parseCertificates } from '../../agent/identity/certificate';
import type { Daemon } from '../support/daemon';
import { fetchText } from '../support/fetch-text';
import { freePort } from '../support/free-port';
import { createIstioPod, type IstioPod } from '../support/istio-pod';
import { ISTIOD_NAME, type Istiod, mountedRoot, startIstiod } from '../support/istiod';
import { type Kube, startKube } from '../support/kube';
import { peerPath } from '../support/peer-path';
import { describeWith } from '../support/peers';
import { filesSocket, layOut, type PilotAgent } from '../support/pilot-agent';
import { follow, recipeOf } from '../support/recipe';
import { getSecret } from '../support/sds-client';
import { leafSerial } from '../support/sds-daemon';
import { tempDir } from '../support/temp-dir';
import { until } from '../support/until';

const MINUTE = 60_000;
const FOUND = 'Existing workload SDS socket found';

describeWith(
  'kube',
  'istiod',
  'pilot-agent',
  'istio-files',
  'envoy',
)("beside Istio's own agent, in a pod as Istio lays it out", () => {
  let kube: Kube;
  let istiod: Istiod;
  let rootPem: string;
  const pods: IstioPod[] = [];
  beforeAll(async () => {
    kube = await startKube();
    await kube.namespace('shop', 'cart');
    const [proxyListenPort, proxyInboundListenPort] = [await freePort(), await freePort()];
    // The Envoy of Istio's images has filters for it that no other has.
    const env = { PILOT_ENABLE_METADATA_EXCHANGE: 'false' };
    istiod = await startIstiod(kube, {
      env,
      meshConfig: { proxyListenPort, proxyInboundListenPort },
    });
    rootPem = await mountedRoot(kube, 'shop');
  }, 2 * MINUTE);
  afterEach(async () => {
    for (const pod of pods.splice(0)) await pod.close();
  });
  afterAll(async () => {
    await istiod?.stop();
    await kube?.stop();
  });

  async function pod(): Promise<IstioPod> {
    const token = await kube.token('shop', 'cart', { audiences: ['istio-ca'] });
    const made = await createIstioPod(istiod, { rootPem, token });
    pods.push(made);
    return made;
  }

  /** Waits until every TLS context of its Envoy has the certificate that the agent serves, under the mesh's root. */
  async function holds({ envoy, running }: PilotAgent, keyturn: Daemon): Promise<void> {
    const roots = parseCertificates(Buffer.from(rootPem), 'root').map(({ serial }) => serial);
    const { serial } = (await keyturn.ready()).workloads[0]!.certificate!;
    const asServed = JSON.stringify({ roots, chain: [serial] });
    await until(`${serial} in Istio's Envoy`, async () => {
      running();
      const contexts = await envoy.certs().catch(() => []);
      const serials = contexts.map((context) => ({
        roots: context.roots.map((root) => root.serial),
        chain: context.chain.map((leaf) => leaf.serial),
      }));
      return serials.length > 1 && serials.every((each) => JSON.stringify(each) === asServed);
    });
  }

  test(
    'its Envoy has our certificate and roots, each rotation and those of a restarted agent, and nobody asks for another certificate',
    async () => {
      const { keyturn: run, agent: start, ...at } = await pod();
      const first = run();
      await first.ready();
      const port = await freePort();
      const agent = await start({
        realEnvoy: true,
        env: { ENVOY_SECURE_METRICS_PORT: String(port) },
      });
      await holds(agent, first);
      expect(agent.log()).toContain(FOUND);
      expect(existsSync(filesSocket(at.dir))).toBe(true);
      const { streams } = (await first.status()).workloads[0]!.sds;
      expect(new Set(streams.map(({ node }) => node))).toEqual(
        new Set(['sidecar~127.0.0.1~cart-0.shop~shop.svc.cluster.local']),
      );

      expect(await first.command('rotate', '--wait')).toMatchObject({ code: 0 });
      await holds(agent, first);
      expect(await servedOver(port, first.sdsSocket, rootPem)).toBe(
        leafSerial((await getSecret(first.sdsSocket)).chainPem),
      );

      await first.kill('SIGKILL');
      const second = run();
      await holds(agent, second);

      await agent.stop();
      const again = await start({ realEnvoy: true });
      await holds(again, second);
      expect(again.log()).toContain(FOUND);
      expect(at.calls()).toBe(0);
    },
    2 * MINUTE,
  );

  test(
    'under the name of WORKLOAD_IDENTITY_SOCKET_FILE it must be there first, and is used',
    async () => {
      const { keyturn: run, agent: start, ...at } = await pod();
      const env = { WORKLOAD_IDENTITY_SOCKET_FILE: 'keyturn' };
      const tooEarly = await start({ env });
      await until('its end', async () => hasEnded(tooEarly));
      expect(tooEarly.log()).toContain('agent configured for non-default SDS socket path');

      const keyturn = run({ env });
      await keyturn.ready();
      const agent = await start({ env, realEnvoy: true });
      await holds(agent, keyturn);
      expect(agent.log()).toContain(FOUND);
      expect(existsSync(join(at.dir, 'var/run/secrets/workload-spiffe-uds/socket'))).toBe(false);
      expect(at.calls()).toBe(0);
    },
    MINUTE,
  );

  test(
    'the recipe for a machine, followed word by word in a fresh place, gives its Envoy our certificate',
    async () => {
      const dir = tempDir();
      const token = await kube.token('shop', 'cart', { audiences: ['istio-ca'] });
      const own = { KEYTURN_ADMIN_ADDRESS: '127.0.0.1:0', KEYTURN_CA_SERVER_NAME: ISTIOD_NAME };
      const discoveryAddress = `localhost:${istiod.port}`;
      const { env, envoy } = await layOut({
        dir,
        caAddress: istiod.address,
        discoveryAddress,
        rootPem,
        token,
        realEnvoy: true,
        env: own,
      });
      const cook = follow(recipeOf('docs/beside-istio.md', 'On a machine'), {
        cwd: dir,
        env,
        programs: { 'pilot-agent': peerPath('pilot-agent')! },
      });
      try {
        const serial = await until('a certificate in its Envoy', async () => {
          const [first] = await envoy.certs().catch(() => []);
          return first?.chain[0]?.serial;
        });
        expect(
          leafSerial(
            (await getSecret(join(dir, 'var/run/secrets/workload-spiffe-uds/socket'))).chainPem,
          ),
        ).toBe(serial);
        expect(cook.said()).toContain(FOUND);
      } finally {
        await cook.stop();
      }
    },
    MINUTE,
  );

  test('it is found while its CA is away', async () => {
    const { keyturn: run, agent: start, ...at } = await pod();
    const keyturn = run({ env: { CA_ADDR: `127.0.0.1:${await freePort()}` } });
    await keyturn.event('sds listening');
    const agent = await start();
    await until('files only', async () => agent.running() && existsSync(filesSocket(at.dir)));
    expect(agent.log()).toContain(FOUND);
    expect((await keyturn.status()).ready).toBe(false);
    expect(at.calls()).toBe(0);
  });

  test("on the port of Istio's agent it would answer for the health of the proxy, which is why it is elsewhere beside that agent", async () => {
    const { keyturn: run, agent: start } = await pod();
    const statusPort = await freePort();
    const keyturn = run({ flags: ['--admin-address', `127.0.0.1:${statusPort}`] });
    await keyturn.ready();
    const agent = await start({ statusPort });
    await until(
      'its complaint',
      async () => agent.running() && agent.log().includes('Error listening on status port'),
    );
    // Its proxy is not ready: there is none.
    expect(await fetchText(`http://127.0.0.1:${statusPort}/healthz/ready`)).toMatchObject({
      status: 200,
      body: 'ready\n',
    });
    const { settings } = await loadConfig({
      flags: { ca: 'builtin' },
      env: { PROXY_CONFIG: '{}' },
    });
    expect(settings).toContainEqual(
      expect.objectContaining({ name: 'admin-address', value: '127.0.0.1:15022' }),
    );
  });

  test("started after Istio's agent it leaves that one its socket, and says which has to start first", async () => {
    const { keyturn: run, agent: start, ...at } = await pod();
    const agent = await start();
    await until('a socket', async () => agent.running() && existsSync(agent.sdsSocket));
    const { code, stderr } = await run().finished;
    expect(code).toBe(71);
    expect(stderr).toContain("it may be Istio's agent, which has to start after this one");
    agent.running();
    expect(existsSync(agent.sdsSocket)).toBe(true);
    await until('a call for a certificate', async () => at.calls() > 0);
  });

  test.each<[string, (at: IstioPod, path: string) => Promise<() => Promise<unknown>>]>([
    [
      'of an agent that was killed',
      async ({ keyturn: run }) => {
        const killed = run();
        await killed.event('sds listening');
        await killed.kill('SIGKILL');
        return async () => undefined;
      },
    ],
    [
      'where somebody listens and says nothing',
      async ({ keyturn: run }, path) => {
        const made = run();
        await made.event('sds listening');
        await made.stop();
        const silent = createServer((socket) => socket.on('error', () => undefined).resume());
        await new Promise<void>((done) => silent.listen(path, done));
        return () => new Promise((done) => silent.close(done));
      },
    ],
  ])(
    "a socket %s is nobody's to Istio's agent, which takes its place and asks its own CA",
    async (_, prepare) => {
      const at = await pod();
      const path = join(at.dir, 'var/run/secrets/workload-spiffe-uds/socket');
      const end = await prepare(at, path);
      expect(existsSync(path)).toBe(true);
      const agent = await at.agent();
      await until('a call for a certificate', async () => agent.running() && at.calls() > 0);
      expect(agent.log()).not.toContain(FOUND);
      await end();
    },
  );
});

function hasEnded(agent: PilotAgent): boolean {
  try {
    return !agent.running();
  } catch {
    return true;
  }
}

/** The serial that a listener of Istio's bootstrap shows to a client of the same identity, after both have judged each other. */
async function servedOver(port: number, sdsSocket: string, rootPem: string): Promise<string> {
  const { keyPem, chainPem } = await getSecret(sdsSocket);
  const options = {
    host: '127.0.0.1',
    port,
    key: keyPem,
    cert: chainPem,
    ca: rootPem,
    checkServerIdentity: () => undefined,
  };
  return until('an answer over mutual TLS', () => askOnce(options), 20_000, 200);
}

function askOnce(options: object): Promise<string | undefined> {
  return new Promise((done) => {
    const socket = connect(options, () =>
      socket.write('GET /stats/prometheus HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'),
    );
    socket.on('data', (bytes: Buffer) => {
      done(
        bytes.toString('latin1').startsWith('HTTP/1.1 200')
          ? socket.getPeerCertificate().serialNumber.toLowerCase()
          : undefined,
      );
      socket.destroy();
    });
    socket.on('error', () => done(undefined)).on('close', () => done(undefined));
  });
}
