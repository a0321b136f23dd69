import { startFakeIstioCsr } from '../support/fake-istio-csr';
import { fakeUnderTest } from '../support/istio-world';
import { describeCaClient } from './ca-client';

describeCaClient('istio-csr', async () => ({
  ...(await fakeUnderTest('istio-csr', await startFakeIstioCsr())),
  warnings: ['the leaf has no key usage'],
}));
