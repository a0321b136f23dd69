import { expect, test } from '@jest/globals';
import { assertKubePath, fieldSelector, kubePath } from '../../../agent/kube/kube-path';
import { outcome } from '../../support/outcome';

test.each([
  ['cart', 'cart'],
  ['..\\..\\secrets#1', '..%5C..%5Csecrets%231'],
  ['a/../b?c=d&e%2f', 'a%2F..%2Fb%3Fc%3Dd%26e%252f'],
  ['...', '...'],
  [' \n\0', '%20%0A%00'],
  ['ä😀', '%C3%A4%F0%9F%98%80'],
  ['\ud800', '%EF%BF%BD'],
])('field E3: the name %j is one segment', (name, segment) => {
  const path = kubePath`/api/v1/pods/${name}/status`;
  expect(path).toBe(`/api/v1/pods/${segment}/status`);
  // What a URL parser makes of it, and a server that decodes each segment.
  const url = new URL(`https://k8s${path}`);
  expect(url.pathname.split('/').map(decodeURIComponent)).toEqual([
    '',
    'api',
    'v1',
    'pods',
    decodeURIComponent(segment),
    'status',
  ]);
  expect([url.search, url.hash]).toEqual(['', '']);
  expect(outcome(() => assertKubePath(path))).toBeUndefined();
});

test.each(['', '.', '..'])('the name %j is refused: it is no segment in any encoding', (name) => {
  expect(outcome(() => kubePath`/api/v1/pods/${name}`)).toEqual({
    field: 'name of a Kubernetes object',
    rule: `must not be "${name}"`,
  });
});

test.each(['/a/b', '/a?b=c&d=%2F', '/a-b_c.d~/e:f@g'])('the path %s may be sent', (path) => {
  expect(outcome(() => assertKubePath(path))).toBeUndefined();
});

test.each([
  '',
  'a',
  '/a\\b',
  '/a#b',
  '/a b',
  '/a/../b',
  '/a/..',
  '/./a',
  '/a//b',
  '/a/',
  '/ä',
  '/a?b c',
  '/a?b#c',
  '/a\nb',
  '/a"',
])('the path %j was put together by hand and is not sent', (path) => {
  expect(outcome(() => assertKubePath(path))).toMatchObject({ field: 'path of a Kubernetes call' });
});

test.each([
  ['spec.signerName', 'example.com/mesh', 'spec.signerName=example.com/mesh'],
  ['metadata.name', 'a,b=c\\d', 'metadata.name=a\\,b\\=c\\\\d'],
])('a selector of %s by %j says %s', (field, value, text) => {
  expect(new URLSearchParams(fieldSelector(field, value)).get('fieldSelector')).toBe(text);
});
