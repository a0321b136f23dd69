import { expect, test } from '@jest/globals';
import { WatchedSource } from '../../../agent/base/watched';
import type { FederatedBundles, SpiffeBundle } from '../../../agent/identity/spiffe-bundle';
import { createTrustBundle } from '../../../agent/identity/trust-bundle';
import { followFederatedNow } from '../../../agent/lifecycle/federated-now';
import { HOUR_MS, makeTestCa, TEST_NOW, type TestCa } from '../../support/certs';
import { TestClock } from '../../support/test-clock';

const bundleOf = (...cas: readonly TestCa[]): SpiffeBundle => ({
  trustDomain: 'other.example',
  roots: createTrustBundle(cas.map(({ certificateDer }) => certificateDer)),
  jwtKeys: [],
  refreshHintSeconds: undefined,
});

test('field A1: roots of other trust domains are handed out while they are valid, taken up and dropped at their dates', async () => {
  const live = await makeTestCa({ notAfterAt: TEST_NOW + 4 * HOUR_MS });
  const again = (notBeforeAt: number, notAfterAt: number) =>
    makeTestCa({ privateKey: live.privateKey, notBeforeAt, notAfterAt });
  const ended = await again(TEST_NOW - 9 * HOUR_MS, TEST_NOW - HOUR_MS);
  const ahead = await again(TEST_NOW + HOUR_MS, TEST_NOW + 2 * HOUR_MS);
  const offered = new WatchedSource<FederatedBundles>(
    new Map([
      ['other.example', bundleOf(live, ended, ahead)],
      ['waiting.example', undefined],
    ]),
  );
  const clock = new TestClock();
  const { bundles, close } = followFederatedNow(offered, clock);
  const served = () =>
    bundles.value.get('other.example')?.roots?.rootsDer.map((der) => Buffer.from(der));
  const of = (...cas: readonly TestCa[]) =>
    cas.map(({ certificateDer }) => Buffer.from(certificateDer));
  let changes = -1;
  bundles.subscribe(() => {
    changes += 1;
  });
  expect([...bundles.value.keys()]).toEqual(['other.example', 'waiting.example']);
  expect(served()).toEqual(of(live));
  await clock.advanceBy(HOUR_MS);
  expect(served()).toEqual(of(live, ahead));
  await clock.advanceBy(HOUR_MS);
  expect(served()).toEqual(of(live));
  // The same again is nothing new to those who hold it.
  offered.set(new Map([...offered.value]));
  expect(changes).toBe(2);
  await clock.advanceBy(2 * HOUR_MS);
  // Nobody of it is believed any more, as with a bundle that became empty.
  expect(bundles.value.get('other.example')).toMatchObject({
    trustDomain: 'other.example',
    roots: undefined,
  });
  await close();
  expect(clock.nextWakeAt()).toBeUndefined();
});
