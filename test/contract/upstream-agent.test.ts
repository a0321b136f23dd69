import { X509Certificate } from 'node:crypto';
import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { describe, expect, test } from '@jest/globals';
import { encodeCertificateReply } from '../../ca-client/istio/wire/messages';
import { TEST_ID } from '../support/certs';
import type { Daemon } from '../support/daemon';
import {
  type FakeCa,
  type FakeCaOptions,
  makeJwt,
  startFakeIstiod,
} from '../support/fake-istio-csr';
import { createIstioMachine, type IstioMachine } from '../support/istio-machine';
import { closing } from '../support/istio-world';
import { makeMountedFiles } from '../support/mounted-files';
import { createSdsClient, getSecret } from '../support/sds-client';
import { leafSerial, rotate } from '../support/sds-daemon';
import { clientPair, type PemPair, rootsPem } from '../support/tls-ca';
import { until } from '../support/until';

// Numbers are those of upstream's conformance list: istio-agent's tests of its CA client and of the agent as a whole. Where ours differs, the
// title says so. Not here: 47, file names that only GKE mounts, which --credentials-dir takes by path; of 43 and 46 the XDS connection, which
// is Istio's agent's (that it finds our socket and asks for no certificate of its own is in interop/pilot-agent); 57's Envoys as
// processes, which interop/envoy-rotation has.

const SOCKET = 'var/run/secrets/workload-spiffe-uds/socket';
const MOUNTED = 'var/run/secrets/workload-spiffe-credentials';
const FILES = ['cert-chain.pem', 'key.pem', 'root-cert.pem'];

async function world(
  options: FakeCaOptions = {},
): Promise<{ readonly ca: FakeCa; readonly machine: IstioMachine }> {
  const ca = closing(await startFakeIstiod(options));
  return { ca, machine: createIstioMachine(ca) };
}

/** What each call proved itself by. */
const proofs = (ca: FakeCa) =>
  ca.server.calls.map(({ clientUris, headers }) => ({
    certificate: clientUris?.[0],
    token: headers.authorization !== undefined,
  }));

/** PROV_CERT as whoever sets a machine up leaves it: the CA's root is there from the first, the pair may come later. */
function provideRoot(machine: IstioMachine, ca: FakeCa, dir = 'prov'): void {
  machine.write(`${dir}/root-cert.pem`, rootsPem(ca.signer));
}

function provide(machine: IstioMachine, { chainPem, keyPem }: PemPair, dir = 'prov'): void {
  machine.write(`${dir}/cert-chain.pem`, chainPem);
  machine.write(`${dir}/key.pem`, keyPem);
}

async function mount(machine: IstioMachine, dir: string, ca: FakeCa): Promise<string> {
  const files = await makeMountedFiles(ca.signer);
  for (const [name, bytes] of Object.entries(files)) machine.write(`${dir}/${name}`, bytes);
  return files['cert-chain.pem'].toString();
}

/** The workload's last error, once there is one. */
const failure = (daemon: Daemon) =>
  until(
    'an error',
    async () => (await daemon.status().catch(() => undefined))?.workloads[0]?.lastError,
  );

const served = async (daemon: Daemon) => leafSerial((await getSecret(daemon.sdsSocket)).chainPem);

describe("upstream's CA client, numbers 34 to 38", () => {
  test.each([
    ['tokens alone', false, true],
    ['certificates alone', true, false],
  ])(
    '34 with a certificate in PROV_CERT a server that takes %s is content',
    async (_, clientCertificates, tokenIsKnown) => {
      const { ca, machine } = await world({ clientCertificates });
      provideRoot(machine, ca);
      provide(machine, clientPair(ca.signer));
      if (!tokenIsKnown) machine.token(makeJwt({ sub: 'unknown' }));
      await machine.start({ PROV_CERT: './prov' }).ready();
      expect(proofs(ca)).toEqual([{ certificate: TEST_ID, token: true }]);
    },
  );

  test('35 without one a server that takes certificates alone refuses, and nothing is served', async () => {
    const { ca, machine } = await world();
    provideRoot(machine, ca);
    machine.token(makeJwt({ sub: 'unknown' }));
    const daemon = machine.start({ PROV_CERT: './prov' });
    expect(await failure(daemon)).toMatchObject({ code: 'ERR_CA_REJECTED' });
    expect((await daemon.status()).ready).toBe(false);
    expect(proofs(ca)).not.toContainEqual({ certificate: TEST_ID, token: true });
  });

  test('36 and behaviour 13: one that appears after a failure is used at the next attempt, without a restart', async () => {
    const { ca, machine } = await world();
    provideRoot(machine, ca);
    machine.token(undefined);
    const daemon = machine.start({ PROV_CERT: './prov' });
    expect(await failure(daemon)).toMatchObject({ code: 'ERR_TOKEN' });
    provide(machine, clientPair(ca.signer));
    await daemon.ready();
    expect(proofs(ca)).toEqual([{ certificate: TEST_ID, token: false }]);
  });

  test.each([
    ['UNAVAILABLE is tried again, and counted', status.UNAVAILABLE],
    ['UNKNOWN, which upstream passes on, is tried again too', status.UNKNOWN],
  ])('37 %s', async (_, code) => {
    let left = 1;
    const { machine } = await world({
      misbehave: () => (left-- > 0 ? { status: code, words: 'busy' } : undefined),
    });
    const daemon = machine.start();
    await daemon.ready();
    const { body } = await daemon.http('/metrics');
    for (const name of ['num_outgoing_retries', 'num_failed_outgoing_requests'])
      expect(body).toMatch(new RegExp(`^istio_agent_${name}\\{.*request_type="csr".*\\} 1$`, 'm'));
  });

  test('37 an empty chain is refused, and nothing is served', async () => {
    const { machine } = await world({ misbehave: () => ({ message: encodeCertificateReply([]) }) });
    const daemon = machine.start();
    expect(await failure(daemon)).toMatchObject({ code: 'ERR_CA_RESPONSE' });
    expect((await daemon.status()).ready).toBe(false);
  });

  test('37 the chain that the CA gives is the chain that is served', async () => {
    const { ca, machine } = await world();
    const daemon = machine.start();
    await daemon.ready();
    const certificate = new X509Certificate((await getSecret(daemon.sdsSocket)).chainPem!);
    expect(certificate.subjectAltName).toBe(`URI:${TEST_ID}`);
    expect(certificate.verify(new X509Certificate(ca.signer.certificateDer).publicKey)).toBe(true);
  });

  test('38 the token is sent as Bearer', async () => {
    const { ca, machine } = await world();
    await machine.start().ready();
    expect(ca.server.calls[0]!.headers.authorization).toBe(
      `Bearer ${machine.read('var/run/secrets/tokens/istio-token')}`,
    );
  });

  test('38 an empty token is no header: upstream calls without one, ours has nothing to prove itself with and does not call', async () => {
    const { ca, machine } = await world();
    machine.token('');
    const daemon = machine.start();
    expect(await failure(daemon)).toMatchObject({ code: 'ERR_TOKEN' });
    expect(ca.server.calls).toEqual([]);
  });

  test('38 a wrong token is an error that does not show it', async () => {
    const { machine } = await world();
    const wrong = makeJwt({ sub: 'canary' });
    machine.token(wrong);
    const daemon = machine.start();
    expect(await failure(daemon)).toMatchObject({ code: 'ERR_CA_REJECTED' });
    expect((await daemon.stop()).stderr).not.toContain(wrong.slice(0, -20));
  });
});

describe("upstream's agent, numbers 39 to 57", () => {
  test('39 with the defaults of Kubernetes it serves default and ROOTCA', async () => {
    const { ca, machine } = await world();
    const daemon = machine.start();
    await daemon.ready();
    expect(existsSync(join(machine.dir, SOCKET))).toBe(true);
    expect(new X509Certificate((await getSecret(daemon.sdsSocket)).chainPem!).subjectAltName).toBe(
      `URI:${TEST_ID}`,
    );
    const roots = await getSecret(daemon.sdsSocket, 'ROOTCA');
    expect(new X509Certificate(roots.rootsPem!).raw).toEqual(
      Buffer.from(ca.signer.bundle.rootsDer[0]!),
    );
    expect(proofs(ca)).toEqual([{ certificate: undefined, token: true }]);
  });

  test('40 RSA keys of 2048 bits are made where they are asked for: upstream by default, ours makes ECDSA', async () => {
    const { machine } = await world();
    const daemon = machine.start({ WORKLOAD_RSA_KEY_SIZE: '2048' });
    await daemon.ready();
    const { publicKey } = new X509Certificate((await getSecret(daemon.sdsSocket)).chainPem!);
    expect([publicKey.asymmetricKeyType, publicKey.asymmetricKeyDetails?.modulusLength]).toEqual([
      'rsa',
      2048,
    ]);
  });

  test('41, 42 OUTPUT_CERTS holds exactly three files, with or without a client, and they change with every certificate', async () => {
    const { machine } = await world();
    const daemon = machine.start({ OUTPUT_CERTS: './out', SECRET_TTL: '2s' });
    await daemon.event('certificate files written');
    expect(visible(machine, 'out')).toEqual(FILES);
    const first = machine.read('out/cert-chain.pem');
    await until('another', async () => machine.read('out/cert-chain.pem') !== first);
    const client = createSdsClient(daemon.sdsSocket);
    const stream = client.openStream();
    stream.request(['default']);
    const seen = (await stream.next()).secrets[0]!.chainPem;
    stream.ack();
    const pushed = (await stream.next()).secrets[0]!.chainPem!;
    client.close();
    expect(pushed).not.toBe(seen);
    await daemon.event('certificate files written', ({ serial }) => serial === leafSerial(pushed));
    expect(visible(machine, 'out')).toEqual(FILES);
  });

  test.each([
    ['43 with FILE_MOUNTED_CERTS', MOUNTED, { FILE_MOUNTED_CERTS: 'true' }, true],
    [
      '44 with FILE_MOUNTED_CERTS and a token that is not there',
      MOUNTED,
      { FILE_MOUNTED_CERTS: 'true' },
      false,
    ],
    [
      '46 with FILE_MOUNTED_CERTS and ./etc/certs alone',
      'etc/certs',
      { FILE_MOUNTED_CERTS: 'true' },
      true,
    ],
    [
      '51 with certificates in workload-spiffe-credentials and no word about them',
      MOUNTED,
      {},
      true,
    ],
  ])(
    '%s the files are served, by every name, and the CA is never called',
    async (_, dir, env, hasToken) => {
      const { ca, machine } = await world();
      const chain = await mount(machine, dir, ca);
      if (!hasToken) machine.token(undefined);
      const daemon = machine.start(env as Record<string, string>);
      expect((await daemon.ready()).workloads[0]).toMatchObject({ id: TEST_ID, source: 'file' });
      const names = ['default', `file-cert:./${dir}/cert-chain.pem~./${dir}/key.pem`];
      for (const name of names)
        expect((await getSecret(daemon.sdsSocket, name)).chainPem).toBe(chain);
      const roots = machine.read(`${dir}/root-cert.pem`);
      for (const name of ['ROOTCA', `file-root:./${dir}/root-cert.pem`])
        expect((await getSecret(daemon.sdsSocket, name)).rootsPem).toBe(roots);
      expect(ca.server.handshakes).toEqual({ done: 0, failed: 0 });
    },
  );

  test('46 files in ./etc/certs without FILE_MOUNTED_CERTS: upstream serves them, ours asks the CA that is named and lets them lie', async () => {
    const { ca, machine } = await world();
    const chain = await mount(machine, 'etc/certs', ca);
    const daemon = machine.start();
    expect((await daemon.ready()).workloads[0]).toMatchObject({ source: 'istiod' });
    expect(proofs(ca)).toEqual([{ certificate: undefined, token: true }]);
    expect(machine.read('etc/certs/cert-chain.pem')).toBe(chain);
  });

  test("45 CA_ROOT_CA=SYSTEM believes the roots of this machine alone: a CA of the mesh's root is not given the token", async () => {
    const { ca, machine } = await world();
    const daemon = machine.start({ CA_ROOT_CA: 'SYSTEM' });
    expect(await failure(daemon)).toMatchObject({
      message: expect.stringContaining('TLS connection failed'),
      hint: expect.stringContaining('nothing was sent'),
    });
    expect(ca.server.calls).toEqual([]);
  });

  test('48 and behaviour 15: upstream uses a socket at which somebody lives; ours would be that one, leaves it and refuses to start', async () => {
    const { machine } = await world();
    const living = machine.start();
    await living.ready();
    const { code, stderr } = await machine.start().finished;
    expect(code).toBe(71);
    expect(stderr).toContain('ERR_SOCKET_IN_USE');
    expect(await served(living)).toBe((await living.status()).workloads[0]!.certificate!.serial);
  });

  test('49 and behaviour 15: a dead socket is replaced', async () => {
    const { machine } = await world();
    const killed = machine.start();
    await killed.ready();
    await killed.kill('SIGKILL');
    const dead = lstatSync(join(machine.dir, SOCKET));
    expect(dead.isSocket()).toBe(true);
    const next = machine.start();
    await next.ready();
    expect(await served(next)).toBe((await next.status()).workloads[0]!.certificate!.serial);
  });

  test('50 and behaviour 15: a socket of another name that is not there ends upstream; ours is who makes it', async () => {
    const { machine } = await world();
    const daemon = machine.start({
      WORKLOAD_IDENTITY_SOCKET_FILE: 'other',
      KEYTURN_ADMIN_ADDRESS: '127.0.0.1:0',
    });
    await daemon.ready();
    expect((await getSecret(join(machine.dir, SOCKET, '../other'))).chainPem).toContain(
      'BEGIN CERTIFICATE',
    );
    expect(existsSync(join(machine.dir, SOCKET))).toBe(false);
  });

  test('52 and behaviour 14: a machine starts by its token, and comes back from a reboot without it by mutual TLS', async () => {
    const { ca, machine } = await world();
    provideRoot(machine, ca);
    const env = { PROV_CERT: './prov', OUTPUT_CERTS: './prov' };
    const first = machine.start(env);
    await first.event('certificate files written');
    await first.kill('SIGKILL');
    machine.token(undefined);
    await machine.start(env).ready();
    expect(proofs(ca)).toEqual([
      { certificate: undefined, token: true },
      { certificate: TEST_ID, token: false },
    ]);
  });

  test('53 and behaviour 14: with OUTPUT_CERTS equal to ./etc/certs it keeps rotating: its own files are no mounted ones', async () => {
    const { ca, machine } = await world();
    provideRoot(machine, ca, 'etc/certs');
    const env = { PROV_CERT: './etc/certs', OUTPUT_CERTS: './etc/certs', SECRET_TTL: '4s' };
    const first = machine.start(env);
    await first.event('certificate files written');
    await first.kill('SIGKILL');
    const before = machine.read('etc/certs/cert-chain.pem');
    const second = machine.start(env);
    expect((await second.ready()).workloads[0]).toMatchObject({ source: 'istiod' });
    await until('a rotation of its own', async () => ca.server.calls.length >= 3);
    await until('a file', async () => machine.read('etc/certs/cert-chain.pem') !== before);
  });

  test('54 short-lived certificates in PROV_CERT are rotated, and the latest is what proves the machine', async () => {
    const { ca, machine } = await world();
    provideRoot(machine, ca);
    machine.token(undefined);
    const short = clientPair(ca.signer, TEST_ID, { notAfterAt: Date.now() + 15_000 });
    provide(machine, short);
    const daemon = machine.start({ PROV_CERT: './prov', OUTPUT_CERTS: './prov' });
    await daemon.event('certificate files written');
    expect(machine.read('prov/cert-chain.pem')).not.toBe(short.chainPem.toString());
    const serial = await rotate(daemon);
    await daemon.event('certificate files written', (event) => event.serial === serial);
    expect(leafSerial(machine.read('prov/cert-chain.pem'))).toBe(serial);
    expect(proofs(ca)).toEqual([1, 2].map(() => ({ certificate: TEST_ID, token: false })));
  });

  test('55 and behaviour 14: without OUTPUT_CERTS the files of PROV_CERT stay untouched through every rotation', async () => {
    const { ca, machine } = await world();
    provideRoot(machine, ca);
    machine.token(undefined);
    provide(machine, clientPair(ca.signer));
    const print = () =>
      readdirSync(join(machine.dir, 'prov')).map((name) => [name, machine.read(`prov/${name}`)]);
    const before = print();
    const daemon = machine.start({ PROV_CERT: './prov' });
    await daemon.ready();
    await rotate(daemon);
    expect(print()).toEqual(before);
  });

  test('56 and behaviour 13: a CA that is down for two attempts and comes up is used unattended', async () => {
    const { ca, machine } = await world();
    const { port } = ca.server;
    await ca.close();
    const daemon = machine.start();
    await until(
      'two failures',
      async () =>
        ((await daemon.status().catch(() => undefined))?.workloads[0]?.failures ?? 0) >= 2,
    );
    const again = closing(
      await startFakeIstiod({ signer: ca.signer, port, tokens: ca.tokens as Map<string, never> }),
    );
    await daemon.ready();
    expect(again.server.calls).toHaveLength(1);
    expect(await served(daemon)).toBe((await daemon.status()).workloads[0]!.certificate!.serial);
  });

  test('57 two proxies come, go and come back: who stays gets the rotation, who comes back the latest', async () => {
    const { machine } = await world();
    const daemon = machine.start();
    await daemon.ready();
    const [stays, goes] = [createSdsClient(daemon.sdsSocket), createSdsClient(daemon.sdsSocket)];
    const streams = [stays.openStream(), goes.openStream()];
    for (const stream of streams) {
      stream.request(['default']);
      await stream.next();
      stream.ack();
    }
    goes.close();
    const serial = await rotate(daemon);
    expect(leafSerial((await streams[0]!.next()).secrets[0]!.chainPem)).toBe(serial);
    stays.close();
    expect(await served(daemon)).toBe(serial);
  });
});

/** What a reader of the directory sees as certificates. */
function visible(machine: IstioMachine, dir: string): string[] {
  return readdirSync(join(machine.dir, dir))
    .filter((name) => !name.startsWith('.'))
    .sort();
}
