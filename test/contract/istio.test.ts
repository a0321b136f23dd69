import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { createIstioCa } from '../../ca-client/istio/istio-ca';
import { TEST_ID } from '../support/certs';
import { type FakeCa, startFakeIstioCsr, startFakeIstiod } from '../support/fake-istio-csr';
import { tempDir } from '../support/temp-dir';
import { testDeps } from '../support/test-deps';
import { rootsPem } from '../support/tls-ca';
import { type CaUnderTest, describeCaClient } from './ca-client';

async function connect(name: 'istiod' | 'istio-csr', fake: FakeCa): Promise<CaUnderTest> {
  const dir = tempDir();
  writeFileSync(join(dir, 'root-cert.pem'), rootsPem(fake.signer));
  writeFileSync(join(dir, 'token'), `${fake.token(TEST_ID)}\n`);
  const ca = await createIstioCa(
    { name, address: fake.server.address, mountedRoot: join(dir, 'root-cert.pem'), tokenPath: join(dir, 'token'), clusterId: 'Kubernetes' },
    testDeps(),
  );
  return { ca, id: parseSpiffeId(TEST_ID), now: Date.now, close: () => fake.close() };
}

describeCaClient('istiod', async () => connect('istiod', await startFakeIstiod()));
describeCaClient('istio-csr', async () => ({
  ...(await connect('istio-csr', await startFakeIstioCsr())),
  warnings: ['the leaf has no key usage'],
}));
