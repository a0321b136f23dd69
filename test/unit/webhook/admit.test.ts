import { describe, expect, test } from '@jest/globals';
import type { AdmissionRequest } from '../../../agent/webhook/admission-review';
import { admit, type InjectPod } from '../../../agent/webhook/admit';

const REQUEST: AdmissionRequest = {
  uid: 'u',
  kind: 'v1/Pod',
  operation: 'CREATE',
  subResource: '',
  namespace: 'shop',
  dryRun: false,
  object: { metadata: {}, spec: { containers: [] } },
};
const NOTE = { path: ['spec', 'hostPID'], rule: 'is true: mind' };
const inject: InjectPod = () => ({
  kind: 'injected',
  after: {},
  changes: [{ kind: 'add', path: ['spec', 'volumes'], value: [] }],
  notes: [NOTE],
});

test('a pod that is made is injected; what its author should know is a warning', () => {
  const asked: unknown[] = [];
  const verdict = admit(REQUEST, (pod) => {
    asked.push(pod);
    return inject(pod);
  });
  expect(verdict).toEqual({
    kind: 'allowed',
    patch: [{ op: 'add', path: '/spec/volumes', value: [] }],
    warnings: ['keyturn: spec.hostPID is true: mind'],
  });
  expect(asked).toEqual([REQUEST.object]);
});

test('a pod that asked to be left alone is', () => {
  expect(admit(REQUEST, () => ({ kind: 'left-alone' }))).toEqual({
    kind: 'allowed',
    patch: [],
    warnings: [],
  });
});

const withFields = (field: string) => {
  const many = Object.fromEntries(Array.from({ length: 1_001 }, (_, at) => [`f${at}`, 1]));
  return field === 'object' ? many : { [field.split('.')[1]!]: many };
};
const crowded = (name: string) => ({
  object: {
    metadata: {
      [name]: Object.fromEntries(Array.from({ length: 10_001 }, (_, index) => [`a${index}`, ''])),
    },
  },
});

describe('what is not a pod that is made is denied by field', () => {
  test.each([
    [
      'W19 a Deployment',
      { kind: 'apps/v1/Deployment' },
      'request.kind: must be v1/Pod, not apps/v1/Deployment',
    ],
    [
      'W20 a pod of another version',
      { kind: 'v2/Pod' },
      'request.kind: must be v1/Pod, not v2/Pod',
    ],
    [
      'W21 a pod that is changed',
      { operation: 'UPDATE' },
      'request.operation: must be CREATE, not UPDATE',
    ],
    [
      'W22 a part of a pod',
      { subResource: 'ephemeralcontainers' },
      'request.subResource: must be empty, not ephemeralcontainers',
    ],
    ['W23 a pod of no namespace', { namespace: '' }, 'request.namespace: must not be empty'],
    ['W24 no object', { object: undefined }, 'request.object: must be an object'],
    ['W25 a list', { object: [] }, 'request.object: must be an object'],
    [
      'W47 more labels than any pod has',
      crowded('labels'),
      'request.object.metadata.labels: must not be more than 10000',
    ],
    [
      'W48 more annotations than that',
      crowded('annotations'),
      'request.object.metadata.annotations: must not be more than 10000',
    ],
    ...['object', 'object.metadata', 'object.spec'].map(
      (field): [string, Partial<AdmissionRequest>, string] => [
        `more fields than any ${field} has`,
        { object: withFields(field) },
        `request.${field}: must not be more than 1000`,
      ],
    ),
  ])('%s', (_, change, message) => {
    expect(admit({ ...REQUEST, ...change }, inject)).toEqual({
      kind: 'denied',
      status: 400,
      message,
    });
  });
});

test('a static pod, which a node only shows, stays as it is', () => {
  const object = { metadata: { annotations: { 'kubernetes.io/config.mirror': 'x' } } };
  expect(admit({ ...REQUEST, object }, inject)).toEqual({
    kind: 'allowed',
    patch: [],
    warnings: [],
  });
});

test('a pod that cannot be injected is denied with each field, rule and remedy, and with the way out', () => {
  const problems = [
    { path: ['spec', 'hostNetwork'], rule: 'must not be true', hint: 'use a node agent' },
    NOTE,
  ];
  expect(admit(REQUEST, () => ({ kind: 'refused', problems }))).toEqual({
    kind: 'denied',
    status: 422,
    message:
      'the agent cannot be injected: spec.hostNetwork must not be true (use a node agent); spec.hostPID is true: mind; label the pod keyturn.dev/inject=false to run it without',
  });
  const many = Array.from({ length: 1_000 }, () => NOTE);
  expect(
    JSON.stringify(admit(REQUEST, () => ({ kind: 'refused', problems: many }))).length,
  ).toBeLessThan(1_000);
});

test('a fault of ours is not blamed on the pod', () => {
  expect(() =>
    admit(REQUEST, () => {
      throw new TypeError('x is not a function');
    }),
  ).toThrow('x is not a function');
});
