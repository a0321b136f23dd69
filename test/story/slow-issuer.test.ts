import { expect, test } from '@jest/globals';
import { runAgent } from '../support/agent';
import { TEST_ID } from '../support/certs';
import { type FakeCa, startFakeIstioCsr } from '../support/fake-istio-csr';
import { closing, WorkloadFiles } from '../support/istio-world';
import { liveCa } from '../support/tls-ca';
import { until } from '../support/until';

const IDENTITY = { namespace: 'shop', 'service-account': 'cart', 'trust-domain': 'cluster.local' };

/** An agent in this process that asks istio-csr, with other flags besides. */
function ask(fake: FakeCa, flags: Readonly<Record<string, string>> = {}) {
  const files = new WorkloadFiles().roots(fake.signer).token(fake.token(TEST_ID));
  const own = {
    ca: 'istio-csr',
    'ca-address': fake.server.address,
    'ca-root': files.rootPath,
    token: files.tokenPath,
  };
  return runAgent(() => ({
    flags: { ...own, 'trust-bundle': files.rootPath, ...IDENTITY, ...flags },
  }));
}

test('field: an issuer that takes longer than --ca-timeout is asked one call at a time, for the same key, and what it signs later counts', async () => {
  const fake = closing(await startFakeIstioCsr({ answerAfterMs: 60_000 }));
  const agent = await ask(fake, { 'ca-timeout': '1s' });
  await until('three calls', async () => fake.server.calls.length === 3);
  expect(fake.waiting()).toBeLessThanOrEqual(1);
  expect(agent.workload().lastError).toMatchObject({
    code: 'ERR_TIMEOUT',
    hint: expect.stringContaining('--ca-timeout'),
  });
  const requests = new Set(fake.server.calls.map(({ message }) => message.toString('latin1')));
  expect(requests.size).toBe(1);
  fake.become({ answerAfterMs: 0 });
  await until('a certificate', async () => agent.workload().state === 'current');
});

async function waitsForTheIssuer(): Promise<void> {
  const fake = closing(await startFakeIstioCsr({ answerAfterMs: 12_000 }));
  const agent = await ask(fake);
  await until('a certificate of the slow issuer', async () => agent.workload().state === 'current');
  expect(fake.server.calls).toHaveLength(1);
  expect(agent.workload()).toMatchObject({ attempts: 1, failures: 0 });
}

async function asksTheSecondMeanwhile(): Promise<void> {
  const mesh = await liveCa({ parent: await liveCa() });
  const slow = closing(await startFakeIstioCsr({ signer: mesh, answerAfterMs: 60_000 }));
  const quick = closing(await startFakeIstioCsr({ signer: mesh, answerAfterMs: 0 }));
  const files = new WorkloadFiles().roots(mesh);
  const agent = await ask(slow, {
    ca: 'istiod,istio-csr',
    'ca-address': `${slow.server.address},${quick.server.address}`,
    'ca-root': files.rootPath,
    'trust-bundle': files.rootPath,
  });
  for (const [token, known] of slow.tokens) quick.tokens.set(token, known);
  await until('a certificate of the second', async () => agent.workload().state === 'current');
  expect(agent.workload().certificate?.signedBy).toBe('istio-csr');
  expect([slow.server.calls.length, quick.server.calls.length]).toEqual([1, 1]);
  await until('the end of the call that is no longer needed', async () => slow.waiting() === 0);
}

test('field: an issuer that signs after twelve seconds is waited for in one call; where there is another CA, that is asked meanwhile', async () => {
  await Promise.all([waitsForTheIssuer(), asksTheSecondMeanwhile()]);
});

test('istio-csr whose issuer leaves the mesh costs no certificate, and is taken back once it is right again', async () => {
  const fake = closing(await startFakeIstioCsr({ answerAfterMs: 0 }));
  const agent = await ask(fake);
  await until('a certificate', async () => agent.workload().state === 'current');
  const { serial } = agent.workload().certificate!;
  fake.changeIssuer(await liveCa({ name: 'stranger' }));
  const rotated = agent.agent.view.rotate(
    { wait: false, reason: 'drill' },
    AbortSignal.timeout(10_000),
  );
  await expect(rotated).rejects.toMatchObject({
    code: 'ERR_CA_UNAVAILABLE',
    message: expect.stringContaining('INTERNAL'),
  });
  expect(agent.workload()).toMatchObject({ state: 'overdue', certificate: { serial } });
  fake.changeIssuer(fake.signer);
  await until('a renewed certificate', async () => agent.workload().state === 'current');
  expect(agent.workload().certificate?.serial).not.toBe(serial);
});

test('field: a new pod that meets istio-csr while no token can be reviewed tries again from a second on, and has its certificate when that is over', async () => {
  const fake = closing(await startFakeIstioCsr({ answerAfterMs: 0 }));
  fake.become({ reviewsTokens: false });
  const agent = await ask(fake, { 'cluster-id': 'Kubernetes' });
  await until('three refusals', async () => fake.server.calls.length === 3);
  fake.become({ reviewsTokens: true });
  await until('a certificate', async () => agent.workload().state === 'current');
  const waits = agent.events
    .filter(({ event }) => event === 'no certificate yet, retrying')
    .map(({ facts }) => facts.retryInSeconds);
  expect(waits).toEqual([expect.any(Number), expect.any(Number), expect.any(Number)]);
  for (const [index, wait] of waits.entries()) expect(wait).toBeLessThanOrEqual(1.2 * 2 ** index);
  expect(agent.events.filter(({ level }) => level === 'error')).toEqual([]);
});
