import { spawnSync } from 'node:child_process';
import { copyFileSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { readSigner } from '../../agent/authority/signers';
import { formatCheckedLine } from '../../agent/authority/store/checked-line';
import { serveCa } from '../support/ca-daemon';
import { fetchText } from '../support/fetch-text';
import { freePort } from '../support/free-port';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';

/** At 70,000 arguments of one call overflowed a stack. */
const REVOCATIONS = process.env.KEYTURN_TEST === 'full' ? 70_000 : 1_000;
const ID = 'spiffe://example.org/ns/shop/sa/cart';
const ASK = ['--trust-domain', 'example.org', '--namespace', 'shop', '--service-account', 'cart'];

test('a machine gets its first certificate by a join token, and renews by the certificate itself', async () => {
  const dir = tempDir();
  const { daemon: ca, address, admin } = await serveCa(dir);
  const made = await ca.command(
    'ca',
    'token',
    'create',
    '--ca-dir',
    './ca',
    '--spiffe-id',
    ID,
    '--ttl',
    '1h',
  );
  expect(made).toMatchObject({ code: 0, stderr: '' });
  expect(made.stdout).toMatch(/^\S+\n$/);
  writeFileSync(join(dir, 'token'), made.stdout);

  const asking = [
    '--ca',
    'istiod',
    '--ca-address',
    address,
    '--ca-root',
    './ca/root-cert.pem',
    '--token',
    './token',
  ];
  const agent = testDaemon({ dir, source: asking, identity: ASK });
  const first = await agent.ready();
  expect(first.workloads[0]).toMatchObject({
    id: ID,
    source: 'istiod',
    state: 'current',
    certificate: { signedBy: 'istiod', warnings: [] },
  });

  // The token is used up, and gone.
  await rm(join(dir, 'token'));
  const renewed = await agent.command('rotate');
  expect(renewed).toMatchObject({ code: 0 });
  const { certificate } = (await agent.status()).workloads[0]!;
  expect(certificate?.serial).not.toBe(first.workloads[0]!.certificate?.serial);

  expect(await fetchText(`http://${admin}/healthz/ready`)).toMatchObject({ status: 200 });
  expect((await fetchText(`http://${admin}/metrics`)).body).toMatch(
    /^keyturn_ca_signing_requests_total\{.*outcome="ok".*\} 1$/m,
  );
  await agent.stop();
  const { code, stdout } = await ca.stop();
  expect(code).toBe(0);
  const audit = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(audit).toMatchObject([
    { decision: 'issued', caller: ID, method: 'join-token' },
    { decision: 'issued', caller: ID, method: 'client-certificate', serial: certificate?.serial },
  ]);
  expect(stdout).not.toContain(made.stdout.trim());
});

test('a one-time token that stays in its file after use is not used again, over restarts too: the certificate proves the machine', async () => {
  const dir = tempDir();
  const { daemon: ca, address } = await serveCa(dir, '--rate-per-identity', '1');
  const { stdout } = await ca.command(
    'ca',
    'token',
    'create',
    '--ca-dir',
    './ca',
    '--spiffe-id',
    ID,
  );
  writeFileSync(join(dir, 'token'), stdout);
  const asking = [
    '--ca',
    'istiod',
    '--ca-address',
    address,
    '--ca-root',
    './ca/root-cert.pem',
    '--token',
    './token',
  ];
  for (const _ of ['first start', 'second start']) {
    const agent = testDaemon({ dir, source: [...asking, '--state-dir', './state'], identity: ASK });
    await agent.ready();
    // Too many in a short time: that says nothing against the certificate.
    while ((await agent.command('rotate')).code === 0);
    await until('a renewal', async () => (await agent.status()).workloads[0]!.failures === 0);
    await agent.event('certificate files written');
    expect(agent.events.filter(({ level }) => level === 'error')).toEqual([]);
    await agent.stop();
  }
  const { stdout: audit } = await ca.stop();
  expect(audit).toContain('RESOURCE_EXHAUSTED');
  expect(audit).not.toContain('UNAUTHENTICATED');
});

test('a root file that appears is one event: one certificate is issued', async () => {
  const dir = tempDir();
  const { daemon: ca, address } = await serveCa(dir);
  const { stdout } = await ca.command(
    'ca',
    'token',
    'create',
    '--ca-dir',
    './ca',
    '--spiffe-id',
    ID,
  );
  writeFileSync(join(dir, 'token'), stdout);
  const asking = [
    '--ca',
    'istiod',
    '--ca-address',
    address,
    '--ca-root',
    './root.pem',
    '--token',
    './token',
  ];
  const agent = testDaemon({ dir, source: asking, identity: ASK });
  // Files are not followed yet: the next attempt finds it.
  await agent.event('no certificate yet, retrying');
  copyFileSync(join(dir, 'ca/root-cert.pem'), join(dir, 'root.pem'));
  const { certificate } = (await agent.ready()).workloads[0]!;
  // An attempt on its own account comes a second after the last at the earliest.
  await until(
    'time for another',
    async () => Date.now() > Date.parse(certificate!.receivedAt) + 2_000,
  );
  const { workloads } = await agent.status();
  expect(workloads[0]).toMatchObject({ renewals: 1, certificate: { serial: certificate!.serial } });
  await agent.stop();
  expect((await ca.stop()).stdout.match(/"decision":"issued"/g)).toHaveLength(1);
});

test('an identity has no more live certificates than it may, and the refusal names flag and figure', async () => {
  const dir = tempDir();
  const { daemon: ca, address } = await serveCa(dir, '--max-live-certificates-per-identity', '2');
  const { stdout } = await ca.command(
    'ca',
    'token',
    'create',
    '--ca-dir',
    './ca',
    '--spiffe-id',
    ID,
  );
  writeFileSync(join(dir, 'token'), stdout);
  const asking = [
    '--ca',
    'istiod',
    '--ca-address',
    address,
    '--ca-root',
    './ca/root-cert.pem',
    '--token',
    './token',
  ];
  const agent = testDaemon({ dir, source: asking, identity: ASK });
  await agent.ready();
  expect(await agent.command('rotate')).toMatchObject({ code: 0 });
  const refused =
    'answered RESOURCE_EXHAUSTED: the identity has 2 live certificates, as many as --max-live-certificates-per-identity allows';
  expect(await agent.command('rotate')).toMatchObject({ stderr: expect.stringContaining(refused) });
  expect((await agent.status()).ready).toBe(true);
  await agent.stop();
  await ca.stop();
});

test(`field E8: the lists of ${REVOCATIONS} revocations are served, and an agent takes them`, async () => {
  const dir = tempDir();
  const { daemon: first } = await serveCa(dir);
  await first.stop();
  const { certificate } = await readSigner(join(dir, 'ca'));
  const issuerKeyId = Buffer.from(certificate.subjectKeyId!).toString('hex');
  for (let index = 0; index < REVOCATIONS; index += 1) {
    const serial = (2n ** 126n + BigInt(index)).toString(16);
    const now = Date.now();
    const record = {
      serial,
      id: ID,
      issuerKeyId,
      notAfterAt: now + 24 * 3_600_000,
      revokedAt: now,
      reason: 'keyCompromise',
    };
    writeFileSync(join(dir, 'ca/state/revoked', serial), formatCheckedLine(record), {
      mode: 0o600,
    });
  }
  const { daemon: ca, admin } = await serveCa(dir);
  const agent = testDaemon({
    dir,
    source: ['--ca', 'builtin', '--ca-dir', './ca', '--crl', `http://${admin}/crl.pem`],
    identity: ASK,
  });
  const revoked = async () => (await agent.status()).workloads[0]!.revocation?.revoked;
  await until('the lists', async () => (await revoked().catch(() => 0)) === REVOCATIONS);
  await agent.ready();
  expect(await fetchText(`http://${admin}/healthz/ready`)).toMatchObject({ status: 200 });
  await agent.stop();
  await ca.stop();
}, 400_000);

test('a machine that holds the list that names it says revoked, shows the certificate no more, and hears of no rules of others', async () => {
  const dir = tempDir();
  const { daemon: ca, address, admin } = await serveCa(dir);
  const publish = async () => {
    writeFileSync(join(dir, 'crl.new'), (await fetchText(`http://${admin}/crl.pem`)).body);
    renameSync(join(dir, 'crl.new'), join(dir, 'crl.pem'));
  };
  await publish();
  const { stdout } = await ca.command(
    'ca',
    'token',
    'create',
    '--ca-dir',
    './ca',
    '--spiffe-id',
    ID,
  );
  writeFileSync(join(dir, 'token'), stdout);
  const asking = [
    '--ca',
    'istiod',
    '--ca-address',
    address,
    '--ca-root',
    './ca/root-cert.pem',
    '--token',
    './token',
  ];
  const agent = testDaemon({ dir, source: [...asking, '--crl', './crl.pem'], identity: ASK });
  const { serial } = (await agent.ready()).workloads[0]!.certificate!;
  expect(await ca.command('ca', 'revoke', '--ca-dir', './ca', ID)).toMatchObject({ code: 0 });
  await until('the list that names it', async () => {
    await publish();
    return (await agent.status()).workloads[0]!.revocation?.revoked === 1;
  });
  const revoked = await until('readiness', async () => {
    const status = await agent.status();
    return status.workloads[0]!.state === 'overdue' && status;
  });
  expect(revoked.reasons).toEqual([
    expect.stringMatching(new RegExp(`names ${serial}; served certificate is revoked$`)),
  ]);
  // The token is known as used: with nothing else to show, nothing is asked.
  const again = await agent.command('rotate');
  expect(again.stderr).toMatch(
    /our certificate is revoked, and the one-time token .* was used before\n.*\(keyturn vm join\)/,
  );
  await rm(join(dir, 'token'));
  const { stdout: next } = await ca.command(
    'ca',
    'token',
    'create',
    '--ca-dir',
    './ca',
    '--spiffe-id',
    ID,
  );
  writeFileSync(join(dir, 'token'), next);
  expect(await agent.command('rotate')).toMatchObject({ code: 0 });
  expect((await agent.status()).reasons).toEqual([]);
  await agent.stop();
  expect((await ca.stop()).stdout.match(/"method":"client-certificate"/g)).toBeNull();
});

test('field: an outage of the authority, and a restart of the agent in it, show no used token again', async () => {
  const dir = tempDir();
  const listen = `127.0.0.1:${await freePort()}`;
  const first = await serveCa(dir, '--listen', listen, '--audit-log', './audit.jsonl');
  const { stdout } = await first.daemon.command(
    'ca',
    'token',
    'create',
    '--ca-dir',
    './ca',
    '--spiffe-id',
    ID,
  );
  writeFileSync(join(dir, 'token'), stdout);
  const asking = [
    '--ca',
    'istiod',
    '--ca-address',
    listen,
    '--ca-root',
    './ca/root-cert.pem',
    '--token',
    './token',
    '--state-dir',
    './state',
  ];
  const agent = testDaemon({ dir, source: asking, identity: ASK });
  await agent.ready();
  await agent.event('certificate files written');
  await first.daemon.stop();
  const failure = { code: 75, stderr: expect.stringContaining('is unreachable') };
  for (const _ of ['first', 'second', 'third'])
    expect(await agent.command('rotate')).toMatchObject(failure);
  await agent.stop();
  const next = testDaemon({ dir, source: asking, identity: ASK });
  await next.ready();
  for (const _ of ['first', 'second']) expect(await next.command('rotate')).toMatchObject(failure);
  const second = await serveCa(dir, '--listen', listen, '--audit-log', './audit.jsonl');
  await until('a renewal', async () => (await next.status()).workloads[0]!.failures === 0);
  expect(await next.command('rotate')).toMatchObject({ code: 0 });
  await next.stop();
  await second.daemon.stop();
  const audit = readFileSync(join(dir, 'audit.jsonl'), 'utf8');
  expect(audit).toContain('client-certificate');
  expect(audit).not.toContain('refused');
  expect(audit.match(/join-token/g)).toHaveLength(1);
});

test('a machine whose certificate was revoked is taken back by a new token at once', async () => {
  const dir = tempDir();
  const { daemon: ca, address } = await serveCa(dir);
  const makeToken = async () => {
    const { stdout } = await ca.command(
      'ca',
      'token',
      'create',
      '--ca-dir',
      './ca',
      '--spiffe-id',
      ID,
    );
    writeFileSync(join(dir, 'token'), stdout);
  };
  await makeToken();
  const asking = [
    '--ca',
    'istiod',
    '--ca-address',
    address,
    '--ca-root',
    './ca/root-cert.pem',
    '--token',
    './token',
  ];
  const agent = testDaemon({ dir, source: asking, identity: ASK });
  await agent.ready();
  expect(await ca.command('ca', 'revoke', '--ca-dir', './ca', ID)).toMatchObject({ code: 0 });
  const refusal = await agent.command('rotate');
  expect(refusal).toMatchObject({ code: 77, stderr: expect.stringContaining('keyturn vm join') });
  await makeToken();
  expect(await agent.command('rotate')).toMatchObject({ code: 0 });
  expect(await agent.command('rotate')).toMatchObject({ code: 0 });
});

test('a machine whose certificates lie in PROV_CERT comes back from a reboot without a token, as with istio-agent', async () => {
  const dir = tempDir();
  const { daemon: ca, address } = await serveCa(dir);
  const { stdout } = await ca.command(
    'ca',
    'token',
    'create',
    '--ca-dir',
    './ca',
    '--spiffe-id',
    ID,
  );
  writeFileSync(join(dir, 'token'), stdout);
  const env = {
    CA_ADDR: address,
    CA_ROOT_CA: './ca/root-cert.pem',
    PROV_CERT: './etc/certs',
    OUTPUT_CERTS: './etc/certs',
  };
  const machine = () => testDaemon({ dir, env, source: ['--token', './token'], identity: ASK });
  const first = machine();
  const before = (await first.ready()).workloads[0]!.certificate!.serial;
  await first.event('certificate files written');
  await first.kill('SIGKILL');
  await rm(join(dir, 'token'));

  const second = machine();
  const { certificate, source } = (await second.ready()).workloads[0]!;
  expect(source).toBe('istiod');
  expect(certificate?.serial).not.toBe(before);
  await ca.stop();
});

test('a token that is used up lets nobody else in, and status says what to do', async () => {
  const dir = tempDir();
  const { daemon: ca, address } = await serveCa(dir);
  const { stdout } = await ca.command(
    'ca',
    'token',
    'create',
    '--ca-dir',
    './ca',
    '--spiffe-id',
    ID,
  );
  writeFileSync(join(dir, 'token'), stdout);
  const asking = [
    '--ca',
    'istiod',
    '--ca-address',
    address,
    '--ca-root',
    './ca/root-cert.pem',
    '--token',
    './token',
  ];
  const first = testDaemon({ dir, source: asking, identity: ASK });
  await first.ready();
  await first.kill('SIGKILL');
  const second = testDaemon({ dir, source: asking, identity: ASK });
  const { lastError } = await until('the refusal', async () => {
    const [workload] = (await second.status().catch(() => undefined))?.workloads ?? [];
    return workload?.lastError && workload;
  }).then((workload) => workload as { lastError: { code: string; hint?: string } });
  expect(lastError).toMatchObject({
    code: 'ERR_CA_REJECTED',
    hint: expect.stringContaining('token'),
  });
});

test('with two authorities the agent fails over only to one that the mesh already trusts', async () => {
  const dir = tempDir();
  const { daemon: ca, address } = await serveCa(dir);
  const { stdout } = await ca.command(
    'ca',
    'token',
    'create',
    '--ca-dir',
    './ca',
    '--spiffe-id',
    ID,
  );
  writeFileSync(join(dir, 'token'), stdout);
  // Both sign with one root here, as two regions would with intermediates of it.
  const asking = [
    '--ca',
    'istiod,builtin',
    '--ca-dir',
    './ca',
    '--ca-address',
    address,
    '--ca-root',
    './ca/root-cert.pem',
    '--token',
    './token',
  ];
  const agent = testDaemon({ dir, source: asking, identity: ASK });
  expect((await agent.ready()).workloads[0]).toMatchObject({
    source: 'istiod,builtin',
    certificate: { signedBy: 'istiod' },
    authorities: [
      { name: 'istiod', active: true, breaker: 'closed', signed: 1, failed: 0 },
      { name: 'builtin', active: false, breaker: 'closed', signed: 0, failed: 0 },
    ],
  });
  await ca.stop();
  expect(await agent.command('rotate')).toMatchObject({ code: 0 });
  const { certificate, authorities } = (await agent.status()).workloads[0]!;
  expect(certificate?.signedBy).toBe('builtin');
  expect(authorities).toMatchObject([
    { active: false, failed: 1, lastError: { code: 'ERR_CA_UNAVAILABLE' } },
    { active: true, signed: 1 },
  ]);
  expect((await agent.command('status')).stdout).toMatch(
    /CA +builtin \(in use\): closed, 1 certificate, 0 failures\n/,
  );
  expect((await agent.http('/metrics')).body).toMatch(
    /^keyturn_certificate_signer\{.*ca="builtin".*\} 1$/m,
  );
});

test('a revoked certificate proves nothing any more, and is in the CRL that the server offers', async () => {
  const dir = tempDir();
  const { daemon: ca, address, admin } = await serveCa(dir);
  const { stdout } = await ca.command(
    'ca',
    'token',
    'create',
    '--ca-dir',
    './ca',
    '--spiffe-id',
    ID,
  );
  writeFileSync(join(dir, 'token'), stdout);
  const asking = [
    '--ca',
    'istiod',
    '--ca-address',
    address,
    '--ca-root',
    './ca/root-cert.pem',
    '--token',
    './token',
  ];
  const agent = testDaemon({ dir, source: asking, identity: ASK });
  const serial = (await agent.ready()).workloads[0]!.certificate!.serial;
  await rm(join(dir, 'token'));

  const before = (await fetchText(`http://${admin}/crl.pem`)).body;
  const revoke = (...args: string[]) =>
    ca.command('ca', 'revoke', ID, '--ca-dir', './ca', '--reason', 'keyCompromise', ...args);
  expect((await revoke()).stdout).toMatch(new RegExp(`${serial}  ${ID}  .*\\(in (24h|23h\\d+m)`));
  const again = await revoke('--output', 'json');
  expect({ ...again, stdout: JSON.parse(again.stdout) }).toMatchObject({
    code: 0,
    stdout: { revoked: [] },
  });
  await until('the CRL to name it', async () => {
    const { body } = await fetchText(`http://${admin}/crl.pem`);
    writeFileSync(join(dir, 'crl.pem'), body);
    return (
      body !== before &&
      spawnSync('openssl', ['crl', '-in', join(dir, 'crl.pem'), '-noout', '-text'], {
        encoding: 'utf8',
      })
        .stdout.toLowerCase()
        .includes(serial)
    );
  });
  await until('the server to refuse it', async () => (await agent.command('rotate')).code !== 0);
  // What is in service stays there: peers are told by the CRL.
  expect((await agent.status()).workloads[0]).toMatchObject({
    state: 'overdue',
    certificate: { serial },
  });
});

test('whoever renews all the time does not escape a revocation by identity', async () => {
  const dir = tempDir();
  const { daemon: ca, address } = await serveCa(dir);
  const { stdout } = await ca.command(
    'ca',
    'token',
    'create',
    '--ca-dir',
    './ca',
    '--spiffe-id',
    ID,
  );
  writeFileSync(join(dir, 'token'), stdout);
  const asking = [
    '--ca',
    'istiod',
    '--ca-address',
    address,
    '--ca-root',
    './ca/root-cert.pem',
    '--token',
    './token',
  ];
  const agent = testDaemon({ dir, source: asking, identity: ASK });
  await agent.ready();
  let ended = false;
  const renewing = (async () => {
    while (!ended) await agent.command('rotate');
  })();
  const { code, stdout: told } = await ca.command(
    'ca',
    'revoke',
    ID,
    '--ca-dir',
    './ca',
    '--output',
    'json',
  );
  ended = true;
  await renewing;
  const { serial } = (await agent.status()).workloads[0]!.certificate!;
  expect({
    code,
    serials: JSON.parse(told).revoked.map((each: { serial: string }) => each.serial),
  }).toEqual({
    code: 0,
    serials: expect.arrayContaining([serial]),
  });
  expect(await agent.command('rotate')).toMatchObject({ code: 77 });
});

test('a root is replaced in stages beside a running server, and no agent ever holds a certificate that others refuse', async () => {
  const dir = tempDir();
  const { daemon: ca, address } = await serveCa(dir);
  const { stdout } = await ca.command(
    'ca',
    'token',
    'create',
    '--ca-dir',
    './ca',
    '--spiffe-id',
    ID,
  );
  writeFileSync(join(dir, 'token'), stdout);
  const asking = [
    '--ca',
    'istiod',
    '--ca-address',
    address,
    '--ca-root',
    './ca/root-cert.pem',
    '--token',
    './token',
  ];
  const agent = testDaemon({ dir, source: asking, identity: ASK });
  const workload = async () => (await agent.status()).workloads[0]!;
  const [old] = (await agent.ready()).workloads[0]!.roots;
  await rm(join(dir, 'token'));
  const root = (...args: readonly string[]) =>
    ca.command('ca', 'root', ...args, '--ca-dir', './ca');

  expect(await root('add', '--trust-domain', 'other.org')).toMatchObject({
    code: 78,
    stderr: expect.stringContaining('trust domain'),
  });
  expect(await root('add')).toMatchObject({
    code: 0,
    stderr: expect.stringContaining('keyturn vm join'),
  });
  await until('both roots to be trusted', async () => (await workload()).roots.length === 2);
  expect(await root('retire', old!.sha256.slice(0, 12))).toMatchObject({ code: 78 });
  expect(await root('activate')).toMatchObject({ code: 75 });
  expect(await root('activate', '--overlap', '0')).toMatchObject({
    code: 75,
    stderr: expect.stringContaining(ID),
  });
  expect((await root('list')).stdout).toMatch(
    new RegExp(`Root .* not received by:\n  ${ID}  1 certificate, until`),
  );
  expect(await agent.command('rotate')).toMatchObject({ code: 0 });
  expect(await root('activate', '--overlap', '0')).toMatchObject({ code: 0, stderr: '' });
  const active = JSON.parse((await root('list', '--output', 'json')).stdout).roots.find(
    ({ stage }: { stage: string }) => stage === 'active',
  );
  expect(await root('activate', active.id)).toMatchObject({
    code: 0,
    stderr: expect.stringMatching(/active already.*since.*Z/),
  });
  const before = (await workload()).certificate!.serial;
  await until('a certificate of the new root', async () => {
    await agent.command('rotate');
    return (await workload()).certificate!.serial !== before;
  });
  // The certificates of the old root are still valid.
  expect(await root('retire', old!.sha256.slice(0, 12))).toMatchObject({
    code: 75,
    stderr: expect.stringContaining('in use'),
  });
  expect(await root('retire', old!.sha256.slice(0, 12), '--force')).toMatchObject({ code: 0 });
  await until('the old root to be forgotten', async () =>
    (await workload()).roots.every(({ sha256 }) => sha256 !== old!.sha256),
  );
  expect((await workload()).state).toBe('current');
});
