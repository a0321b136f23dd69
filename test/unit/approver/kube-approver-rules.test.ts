import { describe, expect, test } from '@jest/globals';
import { judgePod, judgeRequest } from '../../../agent/approver/approver-rules';
import { writePem } from '../../../agent/base/pem';
import { formatSpiffeId } from '../../../agent/identity/spiffe-id';
import type { KubeCsr } from '../../../ca-client/kubernetes/csr-object';
import { makeCsr, makeKey } from '../../support/certs';
import { outcome, outcomeOf } from '../../support/outcome';

const POLICY = {
  trustDomain: 'cluster.local',
  minSeconds: 600,
  maxSeconds: 86_400,
  requirePod: false,
  allowedAnnotations: [],
  allowedLabels: [],
};
const REQUEST = writePem(
  'CERTIFICATE REQUEST',
  makeCsr({ privateKey: makeKey('ec', 'prime256v1') }),
);
const POD_NAME = 'authentication.kubernetes.io/pod-name';
const POD_UID = 'authentication.kubernetes.io/pod-uid';

/** A request of shop/cart for itself, as the API server shows it. */
const csrWith = (spec: Partial<KubeCsr['spec']>): KubeCsr => ({
  metadata: { name: 'keyturn-abcde', uid: 'u', resourceVersion: '1' },
  spec: {
    request: REQUEST.toString('base64'),
    signerName: 'example.com/mesh',
    expirationSeconds: 3_600,
    usages: ['digital signature', 'client auth'],
    username: 'system:serviceaccount:shop:cart',
    groups: ['system:serviceaccounts', 'system:serviceaccounts:shop', 'system:authenticated'],
    ...spec,
  },
});

test('a service account may ask for itself', async () => {
  const { requester, id } = await judgeRequest(csrWith({}), POLICY);
  expect(formatSpiffeId(id)).toBe('spiffe://cluster.local/ns/shop/sa/cart');
  expect(requester).toEqual({ namespace: 'shop', serviceAccount: 'cart', pod: undefined });
});

test('what its token is bound to is read', async () => {
  const extra = {
    [POD_NAME]: ['cart-1'],
    [POD_UID]: ['uid-1'],
    'authentication.kubernetes.io/node-name': ['n'],
  };
  const { requester } = await judgeRequest(csrWith({ extra }), POLICY);
  expect(requester.pod).toEqual({ name: 'cart-1', uid: 'uid-1' });
});

test.each<[string, Partial<KubeCsr['spec']>, string, string]>([
  [
    'a client certificate with the name of a service account',
    { groups: ['system:authenticated'] },
    'requester',
    'must be in the groups of a service account',
  ],
  [
    'the groups of another namespace',
    { groups: ['system:serviceaccounts:till'] },
    'requester',
    'must be in the groups of a service account',
  ],
  [
    'field E7: the group of the namespace alone',
    { groups: ['system:serviceaccounts:shop'] },
    'requester',
    'must be in the groups of a service account',
  ],
  ['no name', { username: '' }, 'requester', 'must be a service account'],
  [
    'a name with a part too many',
    { username: 'system:serviceaccount:shop:cart:x' },
    'requester',
    'must be a service account',
  ],
  [
    'a name with a line more',
    { username: 'system:serviceaccount:shop:cart\n' },
    'requester',
    expect.stringMatching(/^must/) as unknown as string,
  ],
  [
    'a name that is no path',
    { username: 'system:serviceaccount:shop:..' },
    'requester',
    expect.stringContaining('must have a SPIFFE ID') as unknown as string,
  ],
  [
    'a pod without its uid',
    { extra: { [POD_NAME]: ['cart-1'] } },
    'requester',
    'must be bound to one pod, by name and uid',
  ],
  [
    'a uid without its pod',
    { extra: { [POD_UID]: ['uid-1'] } },
    'requester',
    'must be bound to one pod, by name and uid',
  ],
  [
    'two pods',
    { extra: { [POD_NAME]: ['a', 'b'], [POD_UID]: ['1'] } },
    'requester',
    'must be bound to one pod, by name and uid',
  ],
  [
    'no PEM',
    { request: 'aGVsbG8=' },
    'request',
    expect.stringContaining('must hold at least one PEM block') as unknown as string,
  ],
  [
    'two requests',
    { request: Buffer.concat([REQUEST, REQUEST]).toString('base64') },
    'request',
    'must be readable: must be one CERTIFICATE REQUEST',
  ],
  [
    'a certificate',
    { request: writePem('CERTIFICATE', REQUEST).toString('base64') },
    'request',
    'must be readable: must be one CERTIFICATE REQUEST',
  ],
  [
    'damage',
    { request: writePem('CERTIFICATE REQUEST', Buffer.alloc(20, 7)).toString('base64') },
    'request',
    expect.stringContaining('must be readable: csr') as unknown as string,
  ],
  ['no usages', { usages: [] }, 'usages', 'must include digital signature'],
  [
    'usages without digital signature',
    { usages: ['client auth', 'server auth'] },
    'usages',
    'must include digital signature',
  ],
  [
    'a field that is not known',
    { additionalOutputFormats: 'ca' } as Partial<KubeCsr['spec']>,
    'spec',
    'must hold known fields only, not additionalOutputFormats',
  ],
  [
    'no time',
    { expirationSeconds: undefined as unknown as number },
    'expirationSeconds',
    'must be given',
  ],
  [
    'half a second',
    { expirationSeconds: 3_600.5 },
    'expirationSeconds',
    'must be from 600 to 86400, not 3600.5',
  ],
  [
    'a time too short',
    { expirationSeconds: 599 },
    'expirationSeconds',
    'must be from 600 to 86400, not 599',
  ],
])('a request with %s is denied', async (_, spec, field, rule) => {
  expect(await outcomeOf(judgeRequest(csrWith(spec), POLICY))).toEqual({ field, rule });
});

describe('field E1: what a signer could act on beside the request passes by name only', () => {
  const judged = (metadata: object, policy: Partial<typeof POLICY> = {}) =>
    outcomeOf(
      judgeRequest(
        { ...csrWith({}), metadata: { ...csrWith({}).metadata, ...metadata } },
        { ...POLICY, ...policy },
      ),
    );
  const lists = {
    allowedAnnotations: ['example.org/a'] as never[],
    allowedLabels: ['example.org/b'] as never[],
  };

  test.each<[string, object, string, string]>([
    [
      'an annotation',
      { annotations: { a: '', b: '' } },
      'annotations',
      'must be among those of --allow-annotation, not a, b',
    ],
    [
      'a label',
      { labels: { team: 'x' } },
      'labels',
      'must be among those of --allow-label, not team',
    ],
    [
      'a finalizer',
      { finalizers: ['x.example/y'] },
      'metadata',
      'must hold annotations and labels only, not finalizers',
    ],
    [
      'an owner',
      { ownerReferences: [{}] },
      'metadata',
      'must hold annotations and labels only, not ownerReferences',
    ],
  ])('%s is denied', async (_, metadata, field, rule) => {
    expect(await judged(metadata)).toEqual({ field, rule });
  });

  test('what is listed passes, each list for its own kind', async () => {
    expect(
      await judged(
        { annotations: { 'example.org/a': 'x' }, labels: { 'example.org/b': 'y' } },
        lists,
      ),
    ).toHaveProperty('id');
    expect(await judged({ annotations: { 'example.org/b': 'x' } }, lists)).toMatchObject({
      field: 'annotations',
    });
    expect(await judged({ labels: { 'example.org/a': 'x' } }, lists)).toMatchObject({
      field: 'labels',
    });
  });

  test('what the API server writes is no reason', async () => {
    const written = {
      generateName: 'keyturn-',
      creationTimestamp: '2026-01-01T00:00:00Z',
      generation: 1,
      managedFields: [{}],
      selfLink: '',
    };
    expect(await judged({ ...written, annotations: {}, labels: {} })).toHaveProperty('id');
  });
});

const requester = {
  namespace: 'shop',
  serviceAccount: 'cart',
  pod: { name: 'cart-1', uid: 'uid-1' },
};

test.each([
  [
    'is the one of the token',
    { metadata: { uid: 'uid-1' }, spec: { serviceAccountName: 'cart' } },
    undefined,
  ],
  ['is gone', undefined, { field: 'pod', rule: 'must still exist, and cart-1 does not' }],
  [
    'is another of its name',
    { metadata: { uid: 'uid-2' }, spec: { serviceAccountName: 'cart' } },
    {
      field: 'pod',
      rule: 'must be the one that the token is bound to, and another is named cart-1 now',
    },
  ],
  [
    'runs as another account',
    { metadata: { uid: 'uid-1' }, spec: { serviceAccountName: 'till' } },
    { field: 'pod', rule: 'must run as cart, and cart-1 runs as till' },
  ],
  [
    'names no account',
    { metadata: { uid: 'uid-1' }, spec: {} },
    { field: 'pod', rule: 'must run as cart, and cart-1 runs as default' },
  ],
])('a pod that %s', (_, pod, want) => {
  expect(outcome(() => judgePod(requester, pod))).toEqual(want);
});

test('a token that is bound to no pod needs none', () => {
  expect(outcome(() => judgePod({ ...requester, pod: undefined }, undefined))).toBeUndefined();
});
