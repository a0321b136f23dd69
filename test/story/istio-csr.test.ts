import { expect, test } from '@jest/globals';
import { type RunningAgent, runAgent } from '../support/agent';
import { TEST_ID } from '../support/certs';
import { type FakeCa, startFakeIstioCsr, startFakeIstiod } from '../support/fake-istio-csr';
import { closing, WorkloadFiles } from '../support/istio-world';
import { until } from '../support/until';

const MINUTE_MS = 60_000;
const IDENTITY = { namespace: 'shop', 'service-account': 'cart', 'trust-domain': 'cluster.local' };

/** An agent in this process whose token dies in ten minutes. */
async function askWithShortToken(
  fake: FakeCa,
  ca: string,
): Promise<RunningAgent & { readonly expiresAt: number }> {
  const expiresAt = Math.floor((Date.now() + 10 * MINUTE_MS) / 1_000) * 1_000;
  const files = new WorkloadFiles().roots(fake.signer).token(fake.token(TEST_ID, { expiresAt }));
  const flags = {
    ca,
    'ca-address': fake.server.address,
    'ca-root': files.rootPath,
    token: files.tokenPath,
  };
  const running = await runAgent(() => ({
    flags: { ...flags, 'trust-bundle': files.rootPath, ...IDENTITY },
  }));
  await until('a certificate', async () => running.workload().state === 'current');
  return { ...running, expiresAt };
}

test('without its CA the agent lasts as long as its certificate, or its token where nothing else is sure to be taken', async () => {
  const csr = await askWithShortToken(
    closing(await startFakeIstioCsr({ answerAfterMs: 0 })),
    'istio-csr',
  );
  expect(csr.workload().outageBudget).toMatchObject({
    until: new Date(csr.expiresAt).toISOString(),
    limit: 'credential for istio-csr',
  });
  const istiod = await askWithShortToken(closing(await startFakeIstiod()), 'istiod');
  const { outageBudget, certificate } = istiod.workload();
  expect(outageBudget).toMatchObject({ until: certificate?.notAfter, limit: 'certificate' });
});

test('the leaf of istio-csr, which has no key usage, is served and warned of', async () => {
  const { workload, client } = await askWithShortToken(
    closing(await startFakeIstioCsr({ answerAfterMs: 0 })),
    'istio-csr',
  );
  expect(workload()).toMatchObject({
    source: 'istio-csr',
    certificate: { signedBy: 'istio-csr', warnings: ['the leaf has no key usage'] },
  });
  expect(await client.get('default')).toBeDefined();
});
