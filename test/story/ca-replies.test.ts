import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { derElement, derTime, TAG } from '../../agent/base/der';
import { PURPOSE } from '../../agent/identity/extensions';
import { createTrustBundle } from '../../agent/identity/trust-bundle';
import type { IssuedChain, SignRequest } from '../../ca-client/ca-client';
import {
  dnsName,
  issueLeaf,
  type LeafOptions,
  makeKey,
  makeTestCa,
  spkiOf,
  TEST_ID,
  type TestCa,
} from '../support/certs';
import { DAY, HOUR, MINUTE, SECOND, tell } from '../support/keeper-story';
import { type ScriptedCa, testRoots } from '../support/scripted-ca';
import { settle } from '../support/test-clock';

/** How a reply is wrong, given the CA and the request. */
type Wrong = (
  ca: ScriptedCa,
  request: SignRequest,
  now: number,
) => IssuedChain | Promise<IssuedChain>;

const leaf =
  (options: Partial<LeafOptions> | ((now: number) => Partial<LeafOptions>)): Wrong =>
  (ca, request, now) =>
    ca.issue(request, typeof options === 'function' ? options(now) : options);
const chain = (...certificatesDer: Uint8Array[]): IssuedChain => ({ certificatesDer });
const text = (tag: number, value: string) => derElement(tag, Buffer.from(value, 'latin1'));

async function weakCa(parent: TestCa): Promise<TestCa> {
  return makeTestCa({ parent, privateKey: makeKey('rsa', 1024), name: 'weak' });
}

const REFUSED: readonly (readonly [string, Wrong])[] = [
  ["C1 a leaf for another's key", leaf({ key: { spkiDer: spkiOf(makeKey('ec', 'prime256v1')) } })],
  ['C2 a leaf for another service account', leaf({ uris: [TEST_ID.replace('cart', 'till')] })],
  [
    'C2 a leaf for another trust domain',
    leaf({ uris: [TEST_ID.replace('cluster.local', 'other.local')] }),
  ],
  ['C2 a leaf with one URI more', leaf({ uris: [TEST_ID, TEST_ID.replace('cart', 'till')] })],
  ['C2 a leaf with our URI twice', leaf({ uris: [TEST_ID, TEST_ID] })],
  ['C2 a leaf with a DNS name only', leaf({ uris: [], otherNames: [dnsName('cart.shop.svc')] })],
  ['C2 a leaf without any name', leaf({ uris: [] })],
  ['C3 a leaf that is a CA', leaf({ isCa: true })],
  ['C3 a leaf that may sign certificates', leaf({ keyUsage: ['digitalSignature', 'keyCertSign'] })],
  ['C3 a leaf that may not sign handshakes', leaf({ keyUsage: ['keyEncipherment'] })],
  ['C3 a leaf for servers only', leaf({ purposes: [PURPOSE.serverAuth] })],
  ['C3 a leaf for clients only', leaf({ purposes: [PURPOSE.clientAuth] })],
  [
    'C4 a chain without its intermediate',
    async (ca, request, now) => {
      const between = await makeTestCa({ parent: ca.signer });
      return chain(
        issueLeaf(between, {
          key: { spkiDer: request.csrDer },
          notBeforeAt: now,
          notAfterAt: now + DAY,
        }),
      );
    },
  ],
  [
    'C4 an intermediate that is none',
    async (ca, request, now) => {
      const between = await makeTestCa({ parent: ca.signer, isCa: false });
      const issued = issueLeaf(between, {
        key: { spkiDer: request.csrDer },
        notBeforeAt: now,
        notAfterAt: now + DAY,
      });
      return chain(issued, ...between.intermediatesDer);
    },
  ],
  [
    'C5 a leaf of a root that we do not trust, which comes along',
    async (_, request, now) => {
      const other = (await testRoots())[1];
      return chain(
        issueLeaf(other, {
          key: { spkiDer: request.csrDer },
          notBeforeAt: now,
          notAfterAt: now + DAY,
        }),
        other.certificateDer,
      );
    },
  ],
  [
    'C5 a leaf signed by nobody we know under the name of our root',
    leaf({ signer: makeKey('ec', 'prime256v1') }),
  ],
  [
    'C6 a leaf that has expired',
    leaf((now) => ({ notBeforeAt: now - DAY, notAfterAt: now - SECOND })),
  ],
  ['C6 a leaf that begins in five minutes', leaf((now) => ({ notBeforeAt: now + 5 * MINUTE }))],
  ['C6 a leaf that begins in an hour', leaf((now) => ({ notBeforeAt: now + HOUR }))],
  [
    'C6 a leaf that ends before it begins',
    leaf((now) => ({ notBeforeAt: now + MINUTE / 2, notAfterAt: now - MINUTE })),
  ],
  [
    'C6 F6 a leaf with a validity of nothing',
    leaf((now) => ({ notBeforeAt: now, notAfterAt: now })),
  ],
  ['C9 garbage', () => chain(randomBytes(300))],
  [
    'C9 a leaf with bytes behind it',
    (ca, request) =>
      chain(Buffer.concat([ca.issue(request).certificatesDer[0]!, Buffer.from('\n')])),
  ],
  [
    'C9 a leaf cut off',
    (ca, request) => chain(ca.issue(request).certificatesDer[0]!.subarray(0, -1)),
  ],
  [
    'C9 PEM where DER belongs',
    () => chain(Buffer.from('-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n')),
  ],
  [
    'C10 two certificates run together in one element',
    (ca, request) =>
      chain(Buffer.concat([...ca.issue(request).certificatesDer, ca.signer.certificateDer])),
  ],
  ['C11 an empty chain', () => chain()],
  ['C11 only the root', (ca) => chain(ca.signer.certificateDer)],
  ['C11 an element of no bytes', () => chain(new Uint8Array(0))],
  ['C12 ten MiB', () => chain(Buffer.alloc(10 << 20, 0x30))],
  [
    'C12 a thousand certificates',
    (ca, request) => chain(...Array<Uint8Array>(1_000).fill(ca.issue(request).certificatesDer[0]!)),
  ],
  ['C14 a negative serial', leaf({ serial: Buffer.from([0x80, 1]) })],
  ['C14 a serial of zero', leaf({ serial: Buffer.from([0]) })],
  ['C14 a leaf signed with SHA-1', leaf({ signature: 'ECDSA-SHA1' })],
  [
    'C14 a leaf under an RSA-1024 issuer',
    async (ca, request, now) => {
      const weak = await weakCa(ca.signer);
      const issued = issueLeaf(weak, {
        key: { spkiDer: request.csrDer },
        notBeforeAt: now,
        notAfterAt: now + DAY,
      });
      return chain(issued, ...weak.intermediatesDer);
    },
  ],
  ['F9 a notAfter without seconds', leaf({ notAfter: text(TAG.utcTime, '3001010000Z') })],
  [
    'F9 a notAfter with a fraction',
    leaf({ notAfter: text(TAG.generalizedTime, '20500101000000.5Z') }),
  ],
  ['F9 a notAfter with an offset', leaf({ notAfter: text(TAG.utcTime, '300101000000+0100') })],
  [
    'F9 a notBefore of 1950, as UTCTime has it, with a notAfter of 1951',
    leaf({
      notBefore: text(TAG.utcTime, '500101000000Z'),
      notAfter: text(TAG.utcTime, '510101000000Z'),
    }),
  ],
  ['F9 a thirteenth month', leaf({ notAfter: text(TAG.utcTime, '301301000000Z') })],
];

describe('a wrong reply never reaches a subscriber, and the next right one does', () => {
  test.each(REFUSED)('%s', async (_, wrong) => {
    const story = await tell({ random: () => 0.5 });
    const good = story.svid!;
    story.ca.behave((request) => wrong(story.ca, request, story.clock.now()));
    await expect(story.keeper.renewNow('a wrong reply')).rejects.toMatchObject({
      code: 'ERR_CA_RESPONSE',
    });
    expect(story.keeper.state.value).toMatchObject({
      kind: 'overdue',
      svid: good,
      error: { code: 'ERR_CA_RESPONSE' },
    });
    story.ca.work();
    await story.clock.advanceBy(2 * MINUTE);
    expect(story.keeper.state.value.kind).toBe('current');
    const offered = new Set(
      story.states.flatMap(({ state }) => ('svid' in state ? [state.svid] : [])),
    );
    expect(offered).toEqual(new Set([good, story.svid]));
  });

  test.each(REFUSED.slice(0, 3))(
    '%s as the first reply leaves nothing to serve',
    async (_, wrong) => {
      const story = await tell({
        prepare: (ca, clock) => ca.behave((request) => wrong(ca, request, clock.now())),
      });
      expect(story.keeper.state.value).toMatchObject({
        kind: 'unavailable',
        expired: undefined,
        error: { code: 'ERR_CA_RESPONSE' },
      });
    },
  );
});

describe('an odd reply that is right', () => {
  const serve = async (reply: Wrong, prepare: (ca: ScriptedCa) => void = () => undefined) => {
    const story = await tell();
    prepare(story.ca);
    story.ca.behave((request) => reply(story.ca, request, story.clock.now()));
    return { story, svid: await story.keeper.renewNow('an odd reply') };
  };

  test('C4 in any order, with duplicates, strangers and roots is served in order, without them', async () => {
    const [old, stranger] = await testRoots();
    const between = await makeTestCa({ parent: old });
    const { svid } = await serve((_, request, now) => {
      const issued = issueLeaf(between, {
        key: { spkiDer: request.csrDer },
        notBeforeAt: now,
        notAfterAt: now + DAY,
      });
      return chain(
        old.certificateDer,
        between.certificateDer,
        stranger.certificateDer,
        between.certificateDer,
        issued,
      );
    });
    expect(svid.chainDer).toHaveLength(2);
    expect(Buffer.compare(svid.chainDer[1]!, between.certificateDer)).toBe(0);
  });

  const beginsSoon = leaf((now) => ({
    notBeforeAt: now + 30 * SECOND,
    notAfterAt: now + 30 * SECOND + DAY,
  }));

  test('C6 F4 that begins within the tolerated skew is served where nothing else is, and planned from its beginning', async () => {
    const story = await tell({
      prepare: (ca, clock) => ca.behave((request) => beginsSoon(ca, request, clock.now())),
    });
    expect(story.svid!.warnings).toEqual([expect.stringContaining('the clock here is behind')]);
    expect(story.keeper.state.value).toMatchObject({
      kind: 'current',
      renewAt: story.startedAt + 30 * SECOND + 12 * HOUR,
    });
  });

  test('C6 F4 that begins within the tolerated skew leaves the previous one in service until then', async () => {
    const story = await tell();
    const before = story.svid;
    story.ca.behave((request) => beginsSoon(story.ca, request, story.clock.now()));
    const renewed = story.keeper.renewNow('an odd reply');
    await settle();
    expect(story.svid).toBe(before);
    await story.clock.advanceTo(story.after(30 * SECOND));
    expect(story.svid).toBe(await renewed);
    expect(story.keeper.state.value).toMatchObject({
      kind: 'current',
      renewAt: story.startedAt + 30 * SECOND + 12 * HOUR,
    });
  });

  test.each([
    ['much shorter', 10 * SECOND, 5 * SECOND],
    ['much longer', 3650 * DAY, 1825 * DAY],
  ])('C7 of a life %s than asked is planned by what was issued', async (_, lifeMs, renewMs) => {
    const { story } = await serve(
      leaf((now) => ({ notBeforeAt: now - MINUTE, notAfterAt: now + lifeMs })),
    );
    expect(story.keeper.state.value).toMatchObject({
      kind: 'current',
      renewAt: story.clock.now() + renewMs,
    });
  });

  test('C8 that outlives its intermediate expires with it', async () => {
    const [old] = await testRoots();
    const { story, svid } = await serve(async (_, request, now) => {
      const between = await makeTestCa({ parent: old, notAfterAt: now + 2 * HOUR });
      const issued = issueLeaf(between, {
        key: { spkiDer: request.csrDer },
        notBeforeAt: now,
        notAfterAt: now + DAY,
      });
      return chain(issued, ...between.intermediatesDer);
    });
    expect(svid.notAfterAt).toBe(story.clock.now() + 2 * HOUR);
    expect(story.keeper.state.value).toMatchObject({
      kind: 'current',
      renewAt: story.clock.now() + HOUR,
    });
  });

  test('C13 under one of 200 roots of one name is served with a warning', async () => {
    const [old] = await testRoots();
    const roots = await Promise.all(
      Array.from({ length: 199 }, () => makeTestCa({ name: 'old root' })),
    );
    const bundle = createTrustBundle([
      ...roots.map(({ certificateDer }) => certificateDer),
      old.certificateDer,
      old.certificateDer,
    ]);
    const { svid } = await serve(
      (ca, request) => ca.issue(request),
      (ca) => ca.trust.set(bundle),
    );
    expect(svid.bundle.rootsDer).toHaveLength(200);
    expect(svid.warnings).toEqual([expect.stringContaining('200 roots')]);
  });

  test('F9 of a life until the year 9999 is served', async () => {
    const far = await makeTestCa({
      name: 'far root',
      notAfterAt: Date.parse('9999-12-31T23:59:59Z'),
    });
    const { svid } = await serve(
      leaf({ notAfter: derTime(Date.parse('9999-12-31T23:59:59Z')) }),
      (ca) => {
        ca.signer = far;
        ca.trust.set(far.bundle);
      },
    );
    expect(svid.notAfterAt).toBe(Date.parse('9999-12-31T23:59:59Z'));
  });
});
