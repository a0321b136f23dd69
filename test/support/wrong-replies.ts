import { randomBytes } from 'node:crypto';
import { derTime } from '../../agent/base/der';
import { certificatesPem } from '../../agent/identity/certificate';
import { PURPOSE } from '../../agent/identity/extensions';
import type { SignRequest } from '../../ca-client/ca-client';
import {
  dnsName,
  HOUR_MS,
  issueLeaf,
  type LeafOptions,
  makeKey,
  makeTestCa,
  spkiOf,
  TEST_ID,
  type TestCa,
} from './certs';

/** Who answers, for what, and when. `ca` is an intermediate, so that a chain can be wrong. */
export interface ReplyContext {
  readonly ca: TestCa;
  /** The root above it. */
  readonly root: TestCa;
  readonly request: SignRequest;
  /** The public key of the request. */
  readonly spkiDer: Uint8Array;
  /** Epoch milliseconds. */
  readonly now: number;
}

/** A reply by title; the number is that of the case in the catalogue of bad replies. */
export type Reply = readonly [
  title: string,
  make: (context: ReplyContext) => readonly Uint8Array[] | Promise<readonly Uint8Array[]>,
];

const OTHER = 'spiffe://cluster.local/ns/shop/sa/admin';

/** A leaf that is right but for `wrong`. */
function leaf(
  { ca, spkiDer, now }: ReplyContext,
  wrong: Partial<LeafOptions> = {},
  by = ca,
): Uint8Array {
  return issueLeaf(by, {
    key: { spkiDer },
    notBeforeAt: now - 120_000,
    notAfterAt: now + 24 * HOUR_MS,
    ...wrong,
  });
}

/** The whole reply around such a leaf. */
const around = (context: ReplyContext, wrong: Partial<LeafOptions> = {}) => [
  leaf(context, wrong),
  ...context.ca.intermediatesDer,
];

const wrongLeaf = (
  title: string,
  wrong: (context: ReplyContext) => Partial<LeafOptions>,
): Reply => [title, (context) => around(context, wrong(context))];

/** Signed by a CA that is itself wrong, in the place of the right one. */
const wrongIssuer = (title: string, make: (context: ReplyContext) => Promise<TestCa>): Reply => [
  title,
  async (context) => {
    const issuer = await make(context);
    return [leaf(context, {}, issuer), ...issuer.intermediatesDer];
  },
];

/** Replies that must never become an SVID. */
export const WRONG_REPLIES: readonly Reply[] = [
  wrongLeaf('C1 for another key', () => ({
    key: { spkiDer: spkiOf(makeKey('ec', 'prime256v1')) },
  })),
  wrongLeaf('C1 for a key of another kind', () => ({
    key: { spkiDer: spkiOf(makeKey('rsa', 2048)) },
  })),
  wrongLeaf('C2 for another service account', () => ({ uris: [OTHER] })),
  wrongLeaf('C2 for another trust domain', () => ({
    uris: [TEST_ID.replace('cluster.local', 'other.org')],
  })),
  wrongLeaf('C2 for two identities', () => ({ uris: [TEST_ID, OTHER] })),
  wrongLeaf('C2 for the trust domain itself', () => ({ uris: ['spiffe://cluster.local'] })),
  wrongLeaf('C2 for another case of letters', () => ({ uris: [TEST_ID.replace('cart', 'Cart')] })),
  wrongLeaf('C2 with a DNS name only', () => ({ uris: [], otherNames: [dnsName('cart.shop')] })),
  wrongLeaf('C2 without a name', () => ({ uris: [] })),
  wrongLeaf('C3 that is a CA', () => ({ isCa: true })),
  wrongLeaf('C3 that may sign certificates', () => ({
    keyUsage: ['digitalSignature', 'keyCertSign'],
  })),
  wrongLeaf('C3 that may not sign handshakes', () => ({ keyUsage: ['keyEncipherment'] })),
  wrongLeaf('C3 for servers only', () => ({ purposes: [PURPOSE.serverAuth] })),
  wrongLeaf('C3 for clients only', () => ({ purposes: [PURPOSE.clientAuth] })),
  ['C4 without its intermediate', (context) => [leaf(context)]],
  [
    'C4 with a stranger in place of its intermediate',
    async (context) => [leaf(context), (await makeTestCa({ parent: context.root })).certificateDer],
  ],
  [
    'C5 of another root, which comes with it',
    async (context) => {
      const stranger = await makeTestCa({ name: 'stranger' });
      return [leaf(context, {}, stranger), stranger.certificateDer];
    },
  ],
  ['C5 of a root of the same name', async (context) => [leaf(context, {}, await makeTestCa())]],
  wrongLeaf('C6 that has expired', ({ now }) => ({ notAfterAt: now - 1_000 })),
  wrongLeaf('C6 that begins in an hour', ({ now }) => ({ notBeforeAt: now + HOUR_MS })),
  wrongLeaf('C6 that ends before it begins', ({ now }) => ({
    notBeforeAt: now + 30_000,
    notAfterAt: now + 20_000,
  })),
  wrongLeaf('C6 that ends as it begins', ({ now }) => ({
    notBeforeAt: now + 30_000,
    notAfterAt: now + 30_000,
  })),
  wrongLeaf('C6 with a time without seconds', () => ({ notAfter: derTime(0).subarray(0, 3) })),
  wrongIssuer('C8 of an intermediate that has expired', ({ root, now }) =>
    makeTestCa({ parent: root, notAfterAt: now - 1_000 }),
  ),
  [
    'C9 of PEM',
    (context) => [certificatesPem([leaf(context)]), certificatesPem(context.ca.intermediatesDer)],
  ],
  ['C9 of garbage', () => [randomBytes(500)]],
  ['C9 cut off', (context) => [leaf(context).subarray(0, -1), ...context.ca.intermediatesDer]],
  [
    'C9 with octets after it',
    (context) => [Buffer.concat([leaf(context), Buffer.of(0)]), ...context.ca.intermediatesDer],
  ],
  ['C11 that is empty', () => []],
  ['C11 of no octets', () => [new Uint8Array()]],
  ['C11 of the root alone', ({ root }) => [root.certificateDer]],
  ['C11 of the chain alone', ({ ca }) => ca.intermediatesDer],
  [
    'C12 of 1000 certificates',
    (context) => [
      ...around(context),
      ...Array.from({ length: 1_000 }, () => context.root.certificateDer),
    ],
  ],
  ['C12 of 10 MiB', (context) => [...around(context), Buffer.alloc(10 << 20, 0x30)]],
  wrongLeaf('C14 with a negative serial', () => ({ serial: Buffer.from('ff01', 'hex') })),
  wrongLeaf('C14 with a serial of 21 octets', () => ({ serial: Buffer.alloc(21, 1) })),
  wrongLeaf('C14 signed with SHA-1', () => ({ signature: 'ECDSA-SHA1' })),
  wrongLeaf('C14 signed by another key than its issuer', () => ({
    signer: makeKey('ec', 'prime256v1'),
  })),
  wrongIssuer('C14 of an RSA-1024 issuer', ({ root }) =>
    makeTestCa({ parent: root, privateKey: makeKey('rsa', 1024) }),
  ),
  wrongIssuer('C14 of an issuer signed with SHA-1', ({ root }) =>
    makeTestCa({ parent: root, signature: 'ECDSA-SHA1' }),
  ),
  wrongIssuer('C3 of an issuer that is no CA', ({ root }) =>
    makeTestCa({ parent: root, isCa: false }),
  ),
  wrongIssuer('C3 of an issuer that may not sign', ({ root }) =>
    makeTestCa({ parent: root, keyUsage: ['cRLSign'] }),
  ),
];

/** Replies that are unusual and right. */
export const ODD_REPLIES: readonly Reply[] = [
  ['C4 out of order', (context) => around(context).reverse()],
  ['C4 with its root', (context) => [...around(context), context.root.certificateDer]],
  ['C4 with everything twice', (context) => around(context).flatMap((each) => [each, each])],
  [
    'C4 with a stranger',
    async (context) => [
      ...around(context),
      (await makeTestCa({ name: 'stranger' })).certificateDer,
    ],
  ],
  wrongLeaf('C6 that begins in half a minute', ({ now }) => ({ notBeforeAt: now + 30_000 })),
  wrongLeaf('C7 for ten seconds', ({ now }) => ({ notAfterAt: now + 10_000 })),
  wrongLeaf('C7 for a year', ({ now }) => ({ notAfterAt: now + 365 * 24 * HOUR_MS })),
  wrongLeaf('C3 without key usage', () => ({ keyUsage: undefined })),
];
