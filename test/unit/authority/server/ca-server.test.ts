import { expect, test } from '@jest/globals';
import type { Metrics } from '../../../../agent/base/metrics';
import {
  parseCertificate,
  parseCertificates,
  uriNames,
} from '../../../../agent/identity/certificate';
import { parseSpiffeId } from '../../../../agent/identity/spiffe-id';
import { acceptIssuedChain } from '../../../../agent/identity/svid';
import { issueIdentity, makeRequest } from '../../../support/ca-server';
import { TEST_ID } from '../../../support/certs';
import { testCaWorld } from '../../../support/test-ca-world';

test('a machine joins with a token and renews with the certificate that it got', async () => {
  const world = await testCaWorld();
  const { key, csrDer } = await makeRequest();
  const first = await world.client().create(csrDer, { token: await world.joinToken() });
  expect(first).toMatchObject({ code: 0 });
  expect(first.chain).toHaveLength(2);
  const [leaf] = parseCertificates(Buffer.from(first.chain[0]!), 'leaf');
  expect(uriNames(leaf!)).toEqual([TEST_ID]);
  const trust = world.authority.trust.value;
  expect(
    acceptIssuedChain(
      { id: parseSpiffeId(TEST_ID), key, source: 'test' },
      [leaf!.der],
      trust,
      Date.now(),
    ).serial,
  ).toBe(leaf!.serial);
  expect(
    parseCertificates(Buffer.from(first.chain.at(-1)!), 'roots').map(({ der }) => Buffer.from(der)),
  ).toEqual(trust.rootsDer.map((der) => Buffer.from(der)));

  const next = await makeRequest();
  const second = await world.client({ key, certificatesDer: [leaf!.der] }).create(next.csrDer);
  expect(second).toMatchObject({ code: 0 });
  expect(world.audit()).toMatchObject([
    {
      decision: 'issued',
      caller: TEST_ID,
      method: 'join-token',
      requested: TEST_ID,
      serial: leaf!.serial,
      status: 'OK',
    },
    {
      decision: 'issued',
      caller: TEST_ID,
      method: 'client-certificate',
      proof: { serial: leaf!.serial },
    },
  ]);
});

test('nobody gets a certificate without a proof', async () => {
  const world = await testCaWorld();
  const { csrDer } = await makeRequest();
  expect(await world.client().create(csrDer)).toMatchObject({
    code: 16,
    details: 'request authenticate failure',
  });
  expect(world.audit()).toMatchObject([
    {
      decision: 'refused',
      status: 'UNAUTHENTICATED',
      reason: expect.stringContaining('the caller shows nothing'),
    },
  ]);
});

test('every decision is counted, refusals by their status and by what the caller has proven', async () => {
  const counted: unknown[] = [];
  const record: Metrics['record'] = (name, labels) => {
    if (name === 'ca_signing_requests_total') counted.push(labels);
  };
  const world = await testCaWorld({ deps: { metrics: { record } } });
  const { csrDer } = await makeRequest();
  await world.client().create(csrDer);
  await world.client(await issueIdentity(world.authority, `${TEST_ID}-other`)).create(csrDer);
  await world.client(await issueIdentity(world.authority)).create(csrDer);
  expect(counted).toEqual([
    { outcome: 'UNAUTHENTICATED', method: 'none' },
    { outcome: 'PERMISSION_DENIED', method: 'client-certificate' },
    { outcome: 'ok', method: 'client-certificate' },
  ]);
});

test('a client certificate of an intermediate proves itself with its chain', async () => {
  const world = await testCaWorld();
  const identity = await issueIdentity(world.authority);
  const { csrDer } = await makeRequest();
  const outcome = await world.client(identity).create(csrDer, { ttlSeconds: 1 });
  expect(outcome).toMatchObject({ code: 0 });
  const leaf = parseCertificate(parseCertificates(Buffer.from(outcome.chain[0]!), 'leaf')[0]!.der);
  expect(leaf.notAfterAt - Date.now()).toBeLessThanOrEqual(1_000);
});
