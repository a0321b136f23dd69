import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  formatAdmissionReview,
  parseAdmissionReview,
  type Verdict,
} from '../../../agent/webhook/admission-review';
import { outcome } from '../../support/outcome';

const UID = '705ab4f5-6393-11e8-b7cc-42010a800002';
const REQUEST = {
  uid: UID,
  kind: { group: '', version: 'v1', kind: 'Pod' },
  resource: { group: '', version: 'v1', resource: 'pods' },
  namespace: 'shop',
  operation: 'CREATE',
  userInfo: { username: 'admin' },
  object: { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'cart' }, spec: { containers: [] } },
  oldObject: null,
  dryRun: true,
  options: { apiVersion: 'meta.k8s.io/v1', kind: 'CreateOptions' },
};
const REVIEW = { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request: REQUEST };
const review = (request: object, around: object = {}) =>
  JSON.stringify({ ...REVIEW, ...around, request });
const parse = (json: string | Buffer) => parseAdmissionReview(Buffer.from(json));
/** `field: rule` of a refusal, or `read`. */
const verdict = (json: string | Buffer) => {
  const found = outcome(() => parse(json));
  return 'field' in found ? `${found.field}: ${found.rule}` : 'read';
};

test('a review of an API server is read', () => {
  expect(parse(JSON.stringify(REVIEW))).toEqual({
    uid: UID,
    kind: 'v1/Pod',
    operation: 'CREATE',
    subResource: '',
    namespace: 'shop',
    dryRun: true,
    object: REQUEST.object,
  });
  expect(
    parse(review({ ...REQUEST, kind: { group: 'apps', version: 'v1', kind: 'Deployment' } })).kind,
  ).toBe('apps/v1/Deployment');
});

describe('what is no review is refused by field', () => {
  const { uid: _, ...anonymous } = REQUEST;
  test.each([
    ['W1 an empty body', '', 'body: must be JSON'],
    ['W2 text', 'hello', 'body: must be JSON'],
    ['W3 half of a review', JSON.stringify(REVIEW).slice(0, 200), 'body: must be JSON'],
    ['W4 octets that are no UTF-8', Buffer.from([0x7b, 0xff, 0xfe, 0x7d]), 'body: must be UTF-8'],
    ['W5 a list', '[]', 'body: must be an object'],
    ['W6 null', 'null', 'body: must be an object'],
    [
      'W7 the version that was before',
      review(REQUEST, { apiVersion: 'admission.k8s.io/v1beta1' }),
      'apiVersion: must be admission.k8s.io/v1',
    ],
    [
      'W8 another kind',
      review(REQUEST, { kind: 'ConversionReview' }),
      'kind: must be AdmissionReview',
    ],
    [
      'W9 no request',
      JSON.stringify({ ...REVIEW, request: undefined }),
      'request: must be an object',
    ],
    ['W10 no uid', review(anonymous), 'request.uid: must be a string'],
    [
      'W11 an empty uid',
      review({ ...REQUEST, uid: '' }),
      'request.uid: must have 1 to 256 characters',
    ],
    [
      'W12 a uid without end',
      review({ ...REQUEST, uid: 'u'.repeat(1_000) }),
      'request.uid: must have 1 to 256 characters',
    ],
    [
      'W13 a kind that is text',
      review({ ...REQUEST, kind: 'Pod' }),
      'request.kind: must be an object',
    ],
    [
      'W14 a kind without version',
      review({ ...REQUEST, kind: { group: '', kind: 'Pod' } }),
      'request.kind.version: must be a string',
    ],
    [
      'W15 an operation that is a number',
      review({ ...REQUEST, operation: 1 }),
      'request.operation: must be a string',
    ],
    [
      'W16 a dryRun that is text',
      review({ ...REQUEST, dryRun: 'yes' }),
      'request.dryRun: must be true or false',
    ],
    [
      'W17 lists in lists',
      `${'['.repeat(100_000)}${']'.repeat(100_000)}`,
      'body: must not be nested deeper than 200',
    ],
    [
      'W18 a pod nested beyond any stack',
      review({ ...REQUEST, object: 0 }).replace('"object":0', `"object":${deep(50_000)}`),
      'body: must not be nested deeper than 200',
    ],
    [
      'W18 more values than any pod has, in as many lists',
      review({ ...REQUEST, object: 0 }).replace(
        '"object":0',
        `"object":[${'[],'.repeat(50_000)}0]`,
      ),
      'body: must not hold more than 50000 values',
    ],
    [
      'W18 more values than any pod has, in one list',
      review({ ...REQUEST, object: 0 }).replace('"object":0', `"object":[${'1,'.repeat(50_000)}0]`),
      'body: must not hold more than 50000 values',
    ],
  ])('%s', (_name, body, message) => {
    expect(verdict(body)).toBe(message);
  });
});

test('brackets and commas in text are not nesting and no values', () => {
  const name = `${'[{'.repeat(1_000)}\\"${'['.repeat(1_000)}${','.repeat(60_000)}`;
  expect(parse(review({ ...REQUEST, object: { name } })).object).toEqual({ name });
});

test('whatever is sent is read or refused by field, in 10,000 damaged reviews', () => {
  const good = Buffer.from(JSON.stringify(REVIEW));
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      (changes) => {
        const bytes = Buffer.from(good);
        for (const [at, value] of changes) bytes[at] = value;
        expect(verdict(bytes)).toMatch(/^(read|[\w.]+: must [^\n]+)$/);
      },
    ),
    { numRuns: 10_000 },
  );
});

describe('an answer', () => {
  const answer = (given: Verdict) => JSON.parse(formatAdmissionReview(UID, given));

  test('with a patch is what an API server applies', () => {
    const patch = [{ op: 'add', path: '/metadata/labels', value: {} }];
    const { response, ...around } = answer({ kind: 'allowed', patch, warnings: ['mind the gap'] });
    expect(around).toEqual({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview' });
    expect(response).toMatchObject({
      uid: UID,
      allowed: true,
      patchType: 'JSONPatch',
      warnings: ['mind the gap'],
    });
    expect(JSON.parse(Buffer.from(response.patch, 'base64').toString())).toEqual(patch);
  });

  test('without a patch says nothing of one', () => {
    expect(answer({ kind: 'allowed', patch: [], warnings: [] }).response).toEqual({
      uid: UID,
      allowed: true,
    });
  });

  test('that denies says why', () => {
    expect(answer({ kind: 'denied', status: 422, message: 'no' }).response).toEqual({
      uid: UID,
      allowed: false,
      status: { code: 422, reason: 'Invalid', message: 'no' },
    });
  });

  test('warns no more and no longer than an API server passes on', () => {
    const { warnings } = answer({
      kind: 'allowed',
      patch: [],
      warnings: Array.from({ length: 100 }, () => 'w'.repeat(1_000)),
    }).response;
    expect(warnings).toHaveLength(16);
    expect(warnings[0]).toMatch(/^w{253}\.\.\.$/);
  });
});

function deep(levels: number): string {
  return `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`;
}
