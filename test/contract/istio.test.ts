import { startFakeIstiod } from '../support/fake-istio-csr';
import { fakeUnderTest } from '../support/istio-world';
import { describeCaClient } from './ca-client';

describeCaClient('istiod', async () => fakeUnderTest('istiod', await startFakeIstiod()));
