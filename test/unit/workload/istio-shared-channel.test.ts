import { expect, test } from '@jest/globals';
import { createSharedCas } from '../../../agent/workload/shared-cas';
import { TEST_ID } from '../../support/certs';
import { startFakeIstiod } from '../../support/fake-istio-csr';
import { closing, issue, openClient, WorkloadFiles } from '../../support/istio-world';
import { testDeps } from '../../support/test-deps';
import { clientPair, liveCa, rootsPem, writePair } from '../../support/tls-ca';

/** An istiod, and clients of several workloads that ask it, each with its own files. */
async function world() {
  const fake = closing(await startFakeIstiod());
  const shared = createSharedCas(testDeps());
  const open = (files: WorkloadFiles, provisioningDir?: string) =>
    openClient(files, {
      address: fake.server.address,
      ...(provisioningDir && { provisioningDir }),
      lendChannel: (options) => shared.channel(options),
    });
  const files = () => new WorkloadFiles().roots(fake.signer).token(fake.token(TEST_ID));
  return { fake, open, files };
}

test('workloads with tokens of their own ask over one connection, and each token goes with its call alone', async () => {
  const { fake, open, files } = await world();
  const clients = await Promise.all([files(), files(), files()].map((each) => open(each)));
  for (const { ca } of clients) await issue(ca);
  expect(fake.server.handshakes.done).toBe(1);
  expect(new Set(fake.server.calls.map(({ headers }) => headers.authorization)).size).toBe(3);
});

test('a certificate is presented on a connection of its own', async () => {
  const { fake, open, files } = await world();
  const withCertificate = files();
  writePair(withCertificate.provDir, clientPair(fake.signer));
  withCertificate.write('prov/root-cert.pem', rootsPem(fake.signer));
  const [one, other] = [await open(files()), await open(withCertificate, withCertificate.provDir)];
  await issue(one.ca);
  await issue(other.ca);
  expect(fake.server.handshakes.done).toBe(2);
});

test('roots that change leave no connection behind that was made by the old ones', async () => {
  const { fake, open, files } = await world();
  const changing = files();
  const { ca } = await open(changing);
  await issue(ca);
  changing.roots(fake.signer, await liveCa({ name: 'next' }));
  await issue(ca);
  const [old, current] = fake.server.calls.map(({ session }) => session);
  // Some calls later, not some time: gRPC itself ends what has been idle for half a minute.
  for (let calls = 0; calls < 20 && !old!.closed; calls += 1) await issue(ca);
  expect(old!.closed).toBe(true);
  expect(current!.closed).toBe(false);
});

test('one that is refused or goes away takes the connection from nobody who is using it', async () => {
  const { fake, open, files } = await world();
  const bad = files();
  const [good, refused] = [await open(files()), await open(bad)];
  bad.token('nonsense');
  const outcomes = await Promise.allSettled([issue(good.ca), issue(refused.ca), issue(good.ca)]);
  expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
  await refused.ca.close();
  await issue(good.ca);
  expect(fake.server.calls.length).toBeGreaterThanOrEqual(4);
});
