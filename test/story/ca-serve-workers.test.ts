import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { openAuthority } from '../../agent/authority/authority';
import { parseCertificate, parseCertificates } from '../../agent/identity/certificate';
import { directEngine } from '../../agent/identity/direct-engine';
import { writeCaDir } from '../support/ca-dir';
import {
  type CaTestClient,
  createCaTestClient,
  issueIdentity,
  makeRequest,
} from '../support/ca-server';
import { HOUR_MS, makeTestCa, TEST_ID } from '../support/certs';
import { fetchText } from '../support/fetch-text';
import { FORM } from '../support/program';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { testDeps } from '../support/test-deps';
import { until } from '../support/until';

const RESOURCE_EXHAUSTED = 8;
const UNAVAILABLE = 14;
const UNAUTHENTICATED = 16;
const WORKERS = 3;
const CONNECTIONS = 9;

const open: { close(): unknown }[] = [];
afterEach(async () => {
  for (const each of open.splice(0)) await each.close();
});

/** `keyturn ca serve` of several workers on a CA with one key, and the means to ask it. */
async function startWorkers(...flags: readonly string[]) {
  const dir = tempDir();
  const ca = await makeTestCa({
    notBeforeAt: Date.now() - HOUR_MS,
    notAfterAt: Date.now() + 24 * HOUR_MS,
  });
  const caDir = join(dir, 'ca');

  const logDir = join(dir, 'log');
  const auditLog = join(logDir, 'audit.jsonl');
  mkdirSync(logDir);
  writeCaDir(caDir, { signer: ca, roots: [ca] });
  const args = [
    'ca',
    'serve',
    '--ca-dir',
    './ca',
    '--listen',
    '127.0.0.1:0',
    '--admin-address',
    '127.0.0.1:0',
    '--log-format',
    'json',
  ];
  const daemon = testDaemon({
    dir,
    args: [
      ...args,
      '--server-names',
      'localhost',
      '--audit-log',
      auditLog,
      '--workers',
      String(WORKERS),
      ...flags,
    ],
  });
  const { address, admin } = await daemon.event('ca server started');
  const options = {
    dir: caDir,
    trustDomain: 'cluster.local',
    rootAlgorithm: 'ecdsa-p256',
    engine: directEngine,
  } as const;
  const authority = await openAuthority(options, testDeps());
  open.push(authority);
  const identity = await issueIdentity(authority);
  return {
    daemon,
    ca,
    caDir,
    logDir,
    admin: String(admin),
    address: String(address),
    /** The workers' process numbers, in the order in which they started. */
    pids: () =>
      daemon.events
        .filter(({ event }) => event === 'ca worker starting')
        .map(({ pid }) => Number(pid)),
    /** One connection each, at whichever worker. */
    clients: (): CaTestClient[] =>
      Array.from({ length: CONNECTIONS }, () => {
        const client = createCaTestClient(
          String(address),
          readFileSync(join(caDir, 'root-cert.pem')),
          identity,
        );
        open.push(client);
        return client;
      }),
    audit: () =>
      readFileSync(auditLog, 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { readonly decision: string; readonly serial?: string }),
  };
}

const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

if (FORM === 'standalone') {
  test('the executable without Node.js refuses several workers, and says why', async () => {
    const { code, stderr } = await testDaemon({
      dir: tempDir(),
      args: ['ca', 'serve', '--workers', '2'],
    }).finished;
    expect(code).toBe(78);
    expect(stderr).toContain('flag --workers: must be 1 in the executable without Node.js');
  });
} else {
  describe('keyturn ca serve with several workers', describeWorkers);
}

function describeWorkers() {
  test('limits, counts and audits as one', async () => {
    // One at once, and the next after 100 seconds.
    const world = await startWorkers('--rate-per-identity', '0.01');
    const { csrDer } = await makeRequest();
    const outcomes = await Promise.all(world.clients().map((client) => client.create(csrDer)));
    expect(outcomes.map(({ code }) => code).sort()).toEqual([
      0,
      ...Array(CONNECTIONS - 1).fill(RESOURCE_EXHAUSTED),
    ]);
    expect(
      world
        .audit()
        .map(({ decision }) => decision)
        .sort(),
    ).toEqual(['issued', ...Array(CONNECTIONS - 1).fill('refused')]);
    const { body } = await fetchText(`http://${world.admin}/metrics`);
    expect(body).toMatch(
      /^keyturn_ca_signing_requests_total\{outcome="ok",method="client-certificate"\} 1$/m,
    );
    expect(body).toMatch(
      new RegExp(
        `^keyturn_ca_signing_requests_total\\{outcome="RESOURCE_EXHAUSTED",method="client-certificate"\\} ${CONNECTIONS - 1}$`,
        'm',
      ),
    );
    expect(body).toMatch(
      new RegExp(`^keyturn_ca_sign_duration_seconds_count ${CONNECTIONS}$`, 'm'),
    );
    expect(await fetchText(`http://${world.admin}/healthz/ready`)).toMatchObject({ status: 200 });
  });

  test('takes a join token of one key, at whichever of them it comes first', async () => {
    const world = await startWorkers();
    const made = await world.daemon.command(
      'ca',
      'token',
      'create',
      '--ca-dir',
      './ca',
      '--spiffe-id',
      TEST_ID,
    );
    const token = made.stdout.trim();
    const strangers = Array.from({ length: CONNECTIONS }, () => {
      const client = createCaTestClient(
        world.address,
        readFileSync(join(world.caDir, 'root-cert.pem')),
      );
      open.push(client);
      return client;
    });
    const outcomes = await Promise.all(
      strangers.map(async (client) => client.create((await makeRequest()).csrDer, { token })),
    );
    expect(outcomes.map(({ code }) => code).sort((a, b) => a - b)).toEqual([
      0,
      ...Array(CONNECTIONS - 1).fill(UNAUTHENTICATED),
    ]);
  });

  test('signs with a new signer in each of them once it lies in the directory', async () => {
    const world = await startWorkers('--rate-per-identity', '0');
    const { csrDer } = await makeRequest();
    const next = await makeTestCa({
      name: 'next',
      notBeforeAt: Date.now() - HOUR_MS,
      notAfterAt: Date.now() + 24 * HOUR_MS,
    });
    await Promise.all(world.clients().map((client) => client.create(csrDer)));
    writeCaDir(world.caDir, { signer: next, roots: [world.ca, next] });
    await until('the new signer in each', async () => {
      const changed = world.daemon.events.filter(
        ({ event, scope }) => event === 'CA signer changed' && scope === 'ca-worker',
      );
      return changed.length === WORKERS;
    });
    const outcomes = await Promise.all(world.clients().map((client) => client.create(csrDer)));
    const issuer = Buffer.from(parseCertificate(next.certificateDer).subjectKeyId!).toString('hex');
    const issuers = outcomes.map(({ chain }) =>
      Buffer.from(parseCertificates(Buffer.from(chain[0]!), 'leaf')[0]!.authorityKeyId!).toString(
        'hex',
      ),
    );
    expect(issuers).toEqual(Array(CONNECTIONS).fill(issuer));
  });

  test('replaces one that is killed under load, says so, and loses nothing that it has handed out', async () => {
    const world = await startWorkers('--rate-per-identity', '0', '--rate-total', '0');
    const { csrDer } = await makeRequest();
    const serials: string[] = [];
    let running = true;
    const load = world.clients().map(async (client) => {
      while (running) {
        const { code, chain } = await client.create(csrDer);
        if (code === 0) serials.push(parseCertificates(Buffer.from(chain[0]!), 'leaf')[0]!.serial);
      }
    });
    await until('certificates', async () => serials.length > 50);
    const [first] = world.pids();
    process.kill(first!, 'SIGKILL');
    await world.daemon.event('ca worker ended, starting another', ({ worker }) => worker === first);
    await until('its successor', async () => world.pids().length === WORKERS + 1);
    const before = serials.length;
    await until('more certificates', async () => serials.length > before + 50);
    running = false;
    await Promise.all(load);
    const audited = new Set(world.audit().map(({ serial }) => serial));
    expect(serials.filter((serial) => !audited.has(serial))).toEqual([]);
    expect(new Set(serials).size).toBe(serials.length);
    expect(await fetchText(`http://${world.admin}/healthz/ready`)).toMatchObject({ status: 200 });
  });

  test('is not ready while one of them cannot issue, and issues nothing that is not audited', async () => {
    const world = await startWorkers('--rate-per-identity', '0');
    const { csrDer } = await makeRequest();
    const [client] = world.clients();
    rmSync(world.logDir, { recursive: true });
    // It is looked once a second whether the file is still there.
    await until('a refusal', async () => (await client!.create(csrDer)).code === UNAVAILABLE);
    const ready = () => fetchText(`http://${world.admin}/healthz/ready`);
    await until('the reason', async () => (await ready()).body.includes('write the audit log'));
    expect((await ready()).status).toBe(503);
    mkdirSync(world.logDir);
    await until('a certificate', async () => (await client!.create(csrDer)).code === 0);
    await until('readiness', async () => (await ready()).status === 200);
  });

  test('ends with all of them at a SIGTERM', async () => {
    const world = await startWorkers();
    expect(await world.daemon.stop()).toMatchObject({ code: 0 });
    expect(world.pids().filter(isAlive)).toEqual([]);
    expect(world.daemon.events.filter(({ event }) => event === 'ca worker stopped')).toHaveLength(
      WORKERS,
    );
  });

  test('leaves none of them behind when it is killed', async () => {
    const world = await startWorkers();
    await world.daemon.kill('SIGKILL');
    await until('the end of each worker', async () => world.pids().filter(isAlive).length === 0);
    expect(world.pids()).toHaveLength(WORKERS);
  });

  test('does not start on a port that is taken, and says so once', async () => {
    const taken = createServer();
    await new Promise<void>((listening) => taken.listen(0, '127.0.0.1', listening));
    open.push({ close: () => taken.close() });
    const { port } = taken.address() as { port: number };
    const args = [
      'ca',
      'serve',
      '--ca-dir',
      './ca',
      '--listen',
      `127.0.0.1:${port}`,
      '--admin-address',
      '127.0.0.1:0',
      '--workers',
      '2',
    ];
    const { code, stderr } = await testDaemon({ dir: tempDir(), args }).finished;
    expect(code).toBe(71);
    expect(stderr.match(/the address is in use/g)).toHaveLength(1);
  });
}
