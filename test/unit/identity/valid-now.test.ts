import { expect, test } from '@jest/globals';
import { derElement, derOid, derSequence, derSet, TAG } from '../../../agent/base/der';
import { createTrustBundle } from '../../../agent/identity/trust-bundle';
import {
  chainValidAt,
  nextChangeAt,
  rootsToHandOut,
  rootsValidAt,
} from '../../../agent/identity/valid-now';
import { HOUR_MS, makeTestCa, type TestCa } from '../../support/certs';
import { issueSvid } from '../../support/sds-world';

const NOW = Date.now();

const bundleOf = (cas: readonly TestCa[]) =>
  createTrustBundle(cas.map(({ certificateDer }) => certificateDer));
const sorted = (cas: readonly TestCa[]) => bundleOf(cas).rootsDer;

test('roots go to proxies sorted, as upstream sends them, without those that are not valid now', async () => {
  const named = await Promise.all(
    Array.from({ length: 8 }, (_, index) => makeTestCa({ name: `root ${index}` })),
  );
  const ended = await makeTestCa({ name: 'ended', notAfterAt: NOW - HOUR_MS });
  const { bundle, withheld } = rootsValidAt(
    bundleOf([...named, ended]),
    await issueSvid(named[5]!),
    NOW,
  );
  expect(bundle!.rootsDer).toEqual(sorted(named));
  expect(withheld.map(({ because }) => because)).toEqual([expect.stringMatching(/^ended at /)]);
});

test('of one name, the root that the certificate verifies by comes first, then the one that lasts longest', async () => {
  const life = (hours: number) =>
    makeTestCa({ name: 'one name', notAfterAt: NOW + hours * HOUR_MS });
  const [short, own, long] = [await life(100), await life(200), await life(300)];
  const others = [await makeTestCa({ name: 'a' }), await makeTestCa({ name: 'b' })];
  const { bundle } = rootsValidAt(
    bundleOf([short, own, long, ...others]),
    await issueSvid(own),
    NOW,
  );
  const ofOneName = bundle!.rootsDer.filter((each) =>
    [short, own, long].some(({ certificateDer }) => Buffer.compare(certificateDer, each) === 0),
  );
  expect(ofOneName).toEqual([own, long, short].map(({ certificateDer }) => certificateDer));
  expect(createTrustBundle(bundle!.rootsDer).rootsDer).toEqual(
    sorted([short, own, long, ...others]),
  );
});

test('field A1: names that differ in case or kind of string are one name', async () => {
  const named = (tag: number, text: string) =>
    derSequence(derSet(derSequence(derOid('2.5.4.3'), derElement(tag, Buffer.from(text)))));
  const names = [
    named(TAG.utf8String, 'one  Name'),
    named(TAG.printableString, 'ONE NAME '),
    named(TAG.utf8String, 'another name'),
  ];
  const roots = await Promise.all(
    names.flatMap((subjectDer) => [1, 2].map(() => makeTestCa({ subjectDer, noKeyIds: true }))),
  );
  for (const own of roots.slice(0, 4)) {
    const { bundle } = rootsValidAt(bundleOf(roots), await issueSvid(own), NOW);
    const ofOneName = bundle!.rootsDer.filter((der) =>
      roots.slice(0, 4).some(({ certificateDer }) => certificateDer === der),
    );
    expect(ofOneName.indexOf(own.certificateDer)).toBe(0);
  }
});

test('of roots of which none is valid all are handed out: a clock may be wrong', async () => {
  const ended = await makeTestCa({ name: 'ended', notAfterAt: NOW - HOUR_MS });
  const bundle = bundleOf([ended]);
  expect(rootsToHandOut(bundle, NOW)).toBe(bundle);
});

test('a chain that is valid as it is stays one object, so nothing is sent twice', async () => {
  const svid = await issueSvid(await makeTestCa({ name: 'root' }));
  expect(chainValidAt(svid, NOW)).toBe(svid);
});

test('the end of a root is the next change where nothing ends before', async () => {
  const [soon, later] = [NOW + 2 * HOUR_MS, NOW + 3 * HOUR_MS];
  const roots = await Promise.all(
    [soon, later].map((notAfterAt, index) => makeTestCa({ name: `root ${index}`, notAfterAt })),
  );
  const next = nextChangeAt([undefined], [undefined, bundleOf(roots)], [undefined], NOW);
  expect(Math.abs(next - soon)).toBeLessThanOrEqual(1_000);
});
