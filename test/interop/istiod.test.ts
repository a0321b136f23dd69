import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll } from '@jest/globals';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { createIstioCa } from '../../ca-client/istio/istio-ca';
import { describeCaClient } from '../contract/ca-client';
import { TEST_ID } from '../support/certs';
import { ISTIOD_NAME, type Istiod, mountedRoot, startIstiod } from '../support/istiod';
import { type Kube, startKube } from '../support/kube';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDeps } from '../support/test-deps';

describeWith('kube', 'istiod')('a real istiod', () => {
  let kube: Kube;
  let istiod: Istiod;
  beforeAll(async () => {
    kube = await startKube();
    await kube.namespace('shop', 'cart');
    istiod = await startIstiod(kube);
  }, 60_000);
  afterAll(async () => {
    await istiod?.stop();
    await kube?.stop();
  });

  describeCaClient('istiod', async () => {
    const dir = tempDir();
    const [caRoot, tokenPath] = [join(dir, 'root.pem'), join(dir, 'token')];
    writeFileSync(caRoot, await mountedRoot(kube, 'shop'));
    writeFileSync(tokenPath, await kube.token('shop', 'cart', { audiences: ['istio-ca'] }));
    const ca = await createIstioCa(
      { name: 'istiod', address: istiod.address, serverName: ISTIOD_NAME, caRoot, trustBundle: caRoot, tokenPath, clusterId: 'Kubernetes' },
      testDeps(),
    );
    return { ca, id: parseSpiffeId(TEST_ID), now: () => Date.now(), close: async () => undefined };
  });
});
