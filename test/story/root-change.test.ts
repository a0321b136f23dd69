import { expect, test } from '@jest/globals';
import { createTrustBundle } from '../../agent/identity/trust-bundle';
import { HOUR, MINUTE, SECOND, tell } from '../support/keeper-story';
import { testRoots } from '../support/scripted-ca';
import { settle } from '../support/test-clock';

test('a root is replaced in three steps, and at each the bundle is out before the leaf and covers old peers and new', async () => {
  const story = await tell();
  const [old, next] = await testRoots();
  const both = createTrustBundle([old.certificateDer, next.certificateDer]);

  await story.clock.advanceBy(HOUR);
  story.ca.trust.set(both);
  expect(story.states.at(-1)!.state).toMatchObject({
    kind: 'current',
    bundle: both,
    svid: { bundle: old.bundle },
  });
  expect(story.ca.attempts).toHaveLength(1);

  await story.clock.advanceBy(HOUR);
  story.ca.signer = next;
  story.ca.tell('signer');
  await settle();
  expect(story.states.at(-1)!.state).toMatchObject({
    kind: 'current',
    bundle: both,
    svid: { bundle: both },
  });
  expect(story.ca.attempts).toHaveLength(2);

  await story.clock.advanceBy(HOUR);
  story.ca.trust.set(next.bundle);
  await story.clock.advanceBy(HOUR);
  expect(story.states.at(-1)!.state).toMatchObject({ kind: 'current', bundle: next.bundle });
  // The leaf was already of the new root: nothing to renew.
  expect(story.ca.attempts).toHaveLength(2);
  expect(story.kinds).toEqual(['starting', ...Array(4).fill('current')]);
});

test('a root that is exchanged at once is published first, and the leaf follows within a second', async () => {
  const story = await tell();
  const [, next] = await testRoots();
  await story.clock.advanceBy(HOUR);
  story.ca.signer = next;
  story.ca.trust.set(next.bundle);
  await story.clock.advanceBy(SECOND);
  const [before, bundle, leaf] = story.states
    .slice(-3)
    .map(({ state }) => state as { svid: object; bundle: object });
  expect(bundle!.bundle).toBe(next.bundle);
  expect(bundle!.svid).toBe(before!.svid);
  expect(leaf).toMatchObject({ bundle: next.bundle, svid: { bundle: next.bundle } });
});

test('a root that is exchanged while the CA is away leaves the old leaf in service until the CA is back', async () => {
  const story = await tell();
  const [, next] = await testRoots();
  const first = story.svid;
  story.ca.failWith('ERR_CA_UNAVAILABLE');
  story.ca.trust.set(next.bundle);
  await story.clock.advanceBy(HOUR);
  expect(story.keeper.state.value).toMatchObject({
    kind: 'overdue',
    svid: first,
    bundle: next.bundle,
  });
  story.ca.signer = next;
  story.ca.work();
  await story.clock.advanceBy(MINUTE);
  expect(story.keeper.state.value).toMatchObject({
    kind: 'current',
    svid: { bundle: next.bundle },
  });
});
