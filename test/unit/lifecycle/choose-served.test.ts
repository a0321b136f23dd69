import { expect, test } from '@jest/globals';
import { createTrustBundle } from '../../../agent/identity/trust-bundle';
import { chooseServed, type Offered, prepare } from '../../../agent/lifecycle/choose-served';
import { HOUR_MS, makeTestCa } from '../../support/certs';
import { issueCa, issueSvid } from '../../support/sds-world';

const OBSTACLE = { kind: 'path', field: 'certificate', rule: 'is refused' } as const;

/** What is served, and a newest offer of another certificate with one root more. */
async function offers() {
  const [old, next] = [await issueCa('old'), await issueCa('next')];
  const [first, second] = [await issueSvid(old), await issueSvid(old)];
  const both = createTrustBundle([old, next].map(({ certificateDer }) => certificateDer));
  const good: Offered = { svid: first, bundle: old.bundle, lists: undefined };
  const newest: Offered = { svid: second, bundle: both, lists: undefined };
  return { good, newest };
}

test('where the newest certificate fails, the newest trust is served with the one before', async () => {
  const { good, newest } = await offers();
  const choice = chooseServed(newest, good, Date.now(), ({ svid }) =>
    svid?.serial === newest.svid!.serial ? OBSTACLE : 'good',
  );
  expect(choice).toMatchObject({ kind: 'serve', obstacle: OBSTACLE });
  expect(choice).toHaveProperty('what.svid.serial', good.svid!.serial);
  expect(choice).toHaveProperty('what.bundle.rootsDer.length', 2);
});

test('where all fail, each set was asked about once, and what is served stays', async () => {
  const { good, newest } = await offers();
  const asked: unknown[] = [];
  const choice = chooseServed(newest, good, Date.now(), ({ svid, bundle }) => {
    asked.push([svid?.serial, bundle?.rootsDer.length]);
    return OBSTACLE;
  });
  expect(choice).toMatchObject({ kind: 'keep', obstacle: OBSTACLE });
  const [before, after] = [good.svid!.serial, newest.svid!.serial];
  expect(asked).toEqual([
    [after, 2],
    [before, 2],
    [after, 1],
    [before, 1],
  ]);
});

test('mounted files may be for the trust of others: only what they trust is judged', async () => {
  const [own, others] = [await issueCa('own'), await issueCa('others')];
  const svid = { ...(await issueSvid(own)), source: 'file' };
  const mounted = prepare({ svid, bundle: others.bundle, lists: undefined }, Date.now());
  expect(mounted).toMatchObject({ obstacle: undefined, handshake: undefined });
  const made = { ...svid, source: 'istiod' };
  const issued = prepare({ svid: made, bundle: others.bundle, lists: undefined }, Date.now());
  expect(issued.obstacle).toMatchObject({ kind: 'path' });
});

test('a bundle without a root that is valid now is refused by the name of each', async () => {
  const now = Date.now();
  const ended = await makeTestCa({ name: 'old root', notAfterAt: now - HOUR_MS });
  const { obstacle } = prepare({ svid: undefined, bundle: ended.bundle, lists: undefined }, now);
  expect(obstacle).toMatchObject({
    field: 'trust bundle',
    rule: expect.stringMatching(/^must hold a root that is valid now: .*old root ended at 20/),
  });
});
