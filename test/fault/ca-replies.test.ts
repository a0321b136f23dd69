import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { systemClock } from '../../agent/base/clock';
import type { CertSource } from '../../agent/identity/cert-state';
import { parseCertificate, parseCertificates } from '../../agent/identity/certificate';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { createKeeper } from '../../agent/lifecycle/keeper';
import { createSdsServer, type SdsServer } from '../../sds/server';
import { HOUR_MS, makeTestCa, TEST_ID, type TestCa } from '../support/certs';
import { instantEngine, ScriptedCa } from '../support/scripted-ca';
import { createSdsClient, type SdsClient, type SotwClientStream } from '../support/sds-client';
import { NO_TOKENS } from '../support/sds-world';
import { testDeps } from '../support/test-deps';
import { ODD_REPLIES, type Reply, WRONG_REPLIES } from '../support/wrong-replies';

const deps = testDeps();
let root: TestCa;
let signer: TestCa;
beforeAll(async () => {
  const now = Date.now();
  root = await makeTestCa({ notBeforeAt: now - 24 * HOUR_MS, notAfterAt: now + 9_000 * HOUR_MS });
  signer = await makeTestCa({
    parent: root,
    notBeforeAt: now - 24 * HOUR_MS,
    notAfterAt: now + 9_000 * HOUR_MS,
  });
});

const keepers: CertSource[] = [];
const endKeepers = async () => {
  for (const keeper of keepers.splice(0)) await keeper.close();
};

async function startKeeper(ca: ScriptedCa): Promise<CertSource> {
  const keeper = createKeeper(
    {
      ca,
      id: parseSpiffeId(TEST_ID),
      engine: await instantEngine(),
      keyAlgorithm: 'ecdsa-p256',
      ttlMs: 24 * HOUR_MS,
      rotation: { ratio: 0.5, jitterRatio: 0 },
      warmStart: undefined,
    },
    deps,
  );
  keepers.push(keeper);
  return keeper;
}

const newCa = () => new ScriptedCa(signer, systemClock);

/** From now on every reply is this one. */
function answerWith(ca: ScriptedCa, [, make]: Reply): void {
  ca.behave(async (request) => ({
    certificatesDer: await make({
      ca: signer,
      root,
      request,
      spkiDer: request.csrDer,
      now: Date.now(),
    }),
  }));
}

/** The first certificate of the chain that a client was sent. */
function serialIn(chainPem: string | undefined): string {
  return parseCertificates(Buffer.from(chainPem!), 'chain')[0]!.serial;
}

// Renewals: one keeper whose good certificate is served, and a client that watches it all the time.
let dir: string;
let ca: ScriptedCa;
let keeper: CertSource;
let sds: SdsServer;
let client: SdsClient;
let stream: SotwClientStream;
let serial: string;
beforeAll(async () => {
  ca = newCa();
  keeper = await startKeeper(ca);
  keepers.pop();
  await keeper.renewNow('test');
  dir = mkdtempSync(join(tmpdir(), 'keyturn-test-'));
  const socketPath = join(dir, 'socket');
  sds = await createSdsServer(
    {
      socketPath,
      mode: 0o600,
      group: undefined,
      keyFormat: 'pkcs8',
      fileDirs: [],
      jwt: NO_TOKENS,
      state: keeper.state,
    },
    deps,
  );
  client = createSdsClient(socketPath);
  stream = client.openStream();
  stream.request(['default']);
  serial = serialIn((await stream.next()).secrets[0]!.chainPem);
  stream.ack();
});
afterAll(async () => {
  client.close();
  await sds.close();
  await keeper.close();
  rmSync(dir, { recursive: true, force: true });
});
afterEach(endKeepers);

test.each(WRONG_REPLIES)(
  '%s: a renewal answered so leaves the last certificate with the proxy',
  async (...reply) => {
    answerWith(ca, reply);
    await expect(keeper.renewNow('test')).rejects.toMatchObject({
      code: 'ERR_CA_RESPONSE',
      field: expect.any(String),
      rule: expect.any(String),
    });
    expect(serialIn((await client.get('default')).chainPem)).toBe(serial);
    expect(stream.waiting).toBe(0);
  },
);

test.each(WRONG_REPLIES)(
  '%s: a first request answered so gives the proxy nothing, and the next good answer is served',
  async (...reply) => {
    const first = newCa();
    answerWith(first, reply);
    const fresh = await startKeeper(first);
    await expect(fresh.renewNow('test')).rejects.toMatchObject({ code: 'ERR_CA_RESPONSE' });
    expect(fresh.state.value).toMatchObject({
      kind: 'unavailable',
      expired: undefined,
      error: { code: 'ERR_CA_RESPONSE' },
    });
    first.work();
    const svid = await fresh.renewNow('test');
    expect(fresh.state.value).toMatchObject({ kind: 'current', svid: { serial: svid.serial } });
  },
);

test.each(ODD_REPLIES)(
  '%s: an answer that is odd and right is put in order and served',
  async (...reply) => {
    const odd = newCa();
    answerWith(odd, reply);
    const svid = await (await startKeeper(odd)).renewNow('test');
    expect(svid.chainDer.slice(1)).toEqual([signer.certificateDer]);
    expect(parseCertificate(svid.chainDer[0]!).serial).toBe(svid.serial);
  },
);

test('the catalogue of wrong replies covers C1 to C14 but for those that are right', () => {
  const covered = new Set([...WRONG_REPLIES, ...ODD_REPLIES].map(([title]) => title.split(' ')[0]));
  // C10 (concatenated PEM) is the wire's, C13 (200 roots of one name) the bundle's.
  expect([...covered].sort()).toEqual([
    'C1',
    'C11',
    'C12',
    'C14',
    'C2',
    'C3',
    'C4',
    'C5',
    'C6',
    'C7',
    'C8',
    'C9',
  ]);
});
