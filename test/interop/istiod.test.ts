import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { certificatesPem, parseCertificate } from '../../agent/identity/certificate';
import { directEngine } from '../../agent/identity/direct-engine';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import type { CaClient } from '../../ca-client/ca-client';
import { createIstioCa } from '../../ca-client/istio/istio-ca';
import { describeCaClient } from '../contract/ca-client';
import { type CertManager, startCertManager } from '../support/cert-manager';
import { TEST_ID } from '../support/certs';
import {
  ISTIOD_NAME,
  type Istiod,
  mountedRoot,
  registrationAuthority,
  startIstiod,
} from '../support/istiod';
import { type Kube, startKube } from '../support/kube';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDeps } from '../support/test-deps';
import { liveCa } from '../support/tls-ca';

const id = parseSpiffeId(TEST_ID);

describeWith('kube', 'istiod')('a real istiod with a root of its own', () => {
  let kube: Kube;
  let istiod: Istiod;
  beforeAll(async () => {
    kube = await startKube();
    await kube.namespace('shop', 'cart');
    istiod = await startIstiod(kube);
  });
  afterAll(async () => {
    await istiod?.stop();
    await kube?.stop();
  });

  describeCaClient('istiod', async () =>
    underTest(await connect(kube, istiod, await mountedRoot(kube, 'shop'))),
  );
});

describeWith(
  'kube',
  'certmanager',
  'istiod',
)('a real istiod that has cert-manager sign, over the Kubernetes CSR API', () => {
  const SIGNER = 'clusterissuers.cert-manager.io/mesh';
  let kube: Kube;
  let certManager: CertManager;
  let istiod: Istiod;
  let rootPem: string;
  beforeAll(async () => {
    const root = await liveCa();
    rootPem = certificatesPem(root.bundle.rootsDer).toString();
    kube = await startKube();
    await kube.namespace('shop', 'cart');
    certManager = await startCertManager(kube);
    await certManager.clusterIssuer('mesh', await liveCa({ parent: root }));
    istiod = await startIstiod(kube, registrationAuthority(SIGNER, rootPem));
  });
  afterAll(async () => {
    await istiod?.stop();
    await certManager?.stop();
    await kube?.stop();
  });

  describeCaClient('istiod', async () => underTest(await connect(kube, istiod, rootPem)));

  test.each([
    ['', ['O=cluster.local, CN=intermediate']],
    ['mesh', ['O=cluster.local, CN=intermediate', 'O=cluster.local, CN=root']],
  ])('with CertSigner "%s" its reply goes on from the leaf with %s', async (certSigner, rest) => {
    const ca = await connect(kube, istiod, rootPem, certSigner);
    const csrDer = await directEngine.createCsr(
      await directEngine.generateKeyPair('ecdsa-p256'),
      id,
    );
    const { certificatesDer } = await ca.sign(
      { id, csrDer, ttlSeconds: 600 },
      AbortSignal.timeout(20_000),
    );
    expect(certificatesDer.slice(1).map((der) => parseCertificate(der, 'reply').subject)).toEqual(
      rest,
    );
    await ca.close();
  });
});

const underTest = (ca: CaClient) => ({
  ca,
  id,
  now: () => Date.now(),
  close: async () => undefined,
});

async function connect(
  kube: Kube,
  istiod: Istiod,
  rootPem: string,
  certSigner = '',
): Promise<CaClient> {
  const dir = tempDir();
  const [caRoot, tokenPath] = [join(dir, 'root.pem'), join(dir, 'token')];
  writeFileSync(caRoot, rootPem);
  writeFileSync(tokenPath, await kube.token('shop', 'cart', { audiences: ['istio-ca'] }));
  const clusterId = 'Kubernetes';
  return createIstioCa(
    {
      name: 'istiod',
      address: istiod.address,
      serverName: ISTIOD_NAME,
      caRoot,
      tokenPath,
      clusterId,
      certSigner,
    },
    testDeps(),
  );
}
