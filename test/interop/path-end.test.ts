import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterEach, expect, test } from '@jest/globals';
import { certificatesPem, parseCertificate } from '../../agent/identity/certificate';
import {
  encodeCertificateReply,
  parseCertificateRequest,
} from '../../ca-client/istio/wire/messages';
import { writeCaDir } from '../support/ca-dir';
import { HOUR_MS, issueLeaf, TEST_ID, type TestCa } from '../support/certs';
import { type Daemon, runKeyturn, startDaemon } from '../support/daemon';
import { startEnvoy } from '../support/envoy';
import { serverConfig } from '../support/envoy-config';
import { type FakeCa, readCsr, startFakeIstiod } from '../support/fake-istio-csr';
import { startGospiffe } from '../support/gospiffe';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { liveCa, rootsPem } from '../support/tls-ca';
import { until } from '../support/until';

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

function started<T extends { stop(): Promise<unknown> }>(what: T): T {
  closing.push(() => what.stop());
  return what;
}

/** An agent that asks a CA over gRPC, with a token in a file. */
function agentOf(
  address: string,
  token: string,
  options: { roots: readonly TestCa[]; caRoot: TestCa },
): Daemon {
  const dir = tempDir();
  const file = (name: string, content: string | Buffer) => {
    writeFileSync(join(dir, name), content, { mode: 0o600 });
    return join(dir, name);
  };
  const [caRoot, bundle] = [
    file('ca-root.pem', rootsPem(options.caRoot)),
    file('bundle.pem', rootsPem(...options.roots)),
  ];
  const tokenFile = file('token', token);
  const source = [
    '--ca',
    'istiod',
    '--ca-address',
    address,
    '--ca-root',
    caRoot,
    '--trust-bundle',
    bundle,
    '--token',
    tokenFile,
  ];
  return started(startDaemon({ dir, source }));
}

test('field A2a an agent whose bundle has the old and the renewed root keeps its identity when the old one ends', async () => {
  const [caDir, work] = [join(tempDir(), 'ca'), tempDir()];
  const renewed = await liveCa();
  const endsAt = Math.ceil(Date.now() / 1_000) * 1_000 + 5_000;
  const old = await liveCa({ privateKey: renewed.privateKey, notAfterAt: endsAt });
  writeCaDir(caDir, { signer: renewed, roots: [renewed] });
  const serving = [
    '--trust-domain',
    'cluster.local',
    '--listen',
    '127.0.0.1:0',
    '--admin-address',
    '127.0.0.1:0',
    '--log-format',
    'json',
  ];
  const ca = started(
    startDaemon({ dir: work, args: ['ca', 'serve', '--ca-dir', caDir, ...serving] }),
  );
  const { address } = await ca.event('ca server listening');
  const made = await runKeyturn(
    ['ca', 'token', 'create', '--ca-dir', caDir, '--spiffe-id', TEST_ID],
    { dir: work },
  );
  const agent = agentOf(String(address), made.stdout.trim(), {
    roots: [old, renewed],
    caRoot: renewed,
  });
  const before = (await agent.ready()).workloads[0]!.certificate!;
  expect(Date.parse(before.notAfter) - Date.now()).toBeGreaterThan(23 * HOUR_MS);
  await until('the end of the old root', async () => Date.now() > endsAt);
  await agent.command('rotate');
  const after = (await agent.status()).workloads[0]!;
  expect(after.certificate!.serial).not.toBe(before.serial);
  expect((await agent.http('/healthz/ready')).status).toBe(200);
});

/** A CA whose clock is ahead by `aheadMs()` at each call. */
async function caAhead(aheadMs: () => number): Promise<FakeCa> {
  const signer = await liveCa();
  const fake = await startFakeIstiod({
    signer,
    misbehave: async (call) => {
      const csr = await readCsr(parseCertificateRequest(call.message).csrPem);
      const now = Date.now();
      const leaf = issueLeaf(signer, {
        key: { spkiDer: csr!.spkiDer },
        notBeforeAt: now + aheadMs(),
        notAfterAt: now + HOUR_MS,
      });
      return {
        message: encodeCertificateReply([
          certificatesPem([leaf]).toString(),
          rootsPem(signer).toString(),
        ]),
      };
    },
  });
  closing.push(() => fake.close());
  return fake;
}

testWith('envoy', 'gospiffe')(
  'field B3 Envoy and go-spiffe meet no certificate that is not valid yet',
  async () => {
    let ahead = -120_000;
    const fake = await caAhead(() => ahead);
    const agent = agentOf(fake.server.address, fake.token(TEST_ID), {
      roots: [fake.signer],
      caRoot: fake.signer,
    });
    const first = (await agent.ready()).workloads[0]!.certificate!.serial;
    const dir = join(agent.dir, 'envoy');
    mkdirSync(dir);
    const envoy = started(
      await startEnvoy({
        dir,
        name: 'envoy',
        config: serverConfig({ mesh: { sds: { socket: agent.sdsSocket }, allow: undefined } }),
      }),
    );
    await envoy.started();
    const port = await envoy.port('mesh');
    const source = startGospiffe(agent.sdsSocket, ['x509', '2']);
    closing.push(() => source.stop());
    expect(await source.next()).toMatchObject({ id: TEST_ID });

    ahead = 4_000;
    const rotated = agent.command('rotate');
    const update = source.next().then((fact) => ({ fact, at: Date.now() }));
    const serials = new Set<string>();
    let begins = 0;
    await until('the next certificate at Envoy', async () => {
      // As a peer of today: OpenSSL refuses what has not begun.
      const leaf = await handshake(port, fake.signer);
      serials.add(leaf.serial);
      begins = leaf.notBeforeAt;
      return serials.size === 2;
    });
    expect([...serials][0]).toBe(first);
    expect((await update).at).toBeGreaterThanOrEqual(begins);
    expect((await rotated).code).toBe(0);
  },
);

/** One TLS handshake that verifies the server's chain at this moment. */
function handshake(port: number, ca: TestCa): Promise<{ serial: string; notBeforeAt: number }> {
  return new Promise((resolve, reject) => {
    const options = {
      host: '127.0.0.1',
      port,
      ca: rootsPem(ca),
      checkServerIdentity: () => undefined,
      ALPNProtocols: ['h2'],
    };
    const socket = connect(options, () => {
      const { serial, notBeforeAt } = parseCertificate(socket.getPeerCertificate(true).raw);
      socket.destroy();
      resolve({ serial, notBeforeAt });
    }).on('error', reject);
  });
}
