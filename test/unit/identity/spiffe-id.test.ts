import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  formatSpiffeId,
  parseSpiffeId,
  parseTrustDomain,
  sameSpiffeId,
  serviceAccountId,
} from '../../../agent/identity/spiffe-id';
import { RUNS } from '../../support/mutations';
import { outcome } from '../../support/outcome';

const scheme = 'must start with spiffe://';
const domainRule = 'may contain only lower-case letters, digits, dots, dashes and underscores';
const segmentRule = 'segments may contain only letters, digits, dots, dashes and underscores';
const dotRule = 'must not be or have a dot segment';
const emptySegment = 'must not have empty segments or a trailing slash';
const id = (rule: string) => ({ field: 'spiffe id', rule });
const domain = (rule: string) => ({ field: 'trust domain', rule });
const path = (rule: string) => ({ field: 'path', rule });

describe('A22 parseSpiffeId', () => {
  const longest = `spiffe://td/${'a'.repeat(2048 - 'spiffe://td/'.length)}`;
  test.each<[string, unknown]>([
    [
      'spiffe://cluster.local/ns/shop/sa/cart',
      { trustDomain: 'cluster.local', path: '/ns/shop/sa/cart' },
    ],
    ['spiffe://a/b', { trustDomain: 'a', path: '/b' }],
    ['spiffe://127.0.0.1/Ab_9.-', { trustDomain: '127.0.0.1', path: '/Ab_9.-' }],
    ['spiffe://td/...', { trustDomain: 'td', path: '/...' }],
    ['spiffe://td/.a', { trustDomain: 'td', path: '/.a' }],
    ['spiffe://_-./x', { trustDomain: '_-.', path: '/x' }],
    [`spiffe://${'a'.repeat(255)}/x`, { trustDomain: 'a'.repeat(255), path: '/x' }],
    [longest, { trustDomain: 'td', path: longest.slice('spiffe://td'.length) }],
    [`${longest}a`, id('must not be longer than 2048 bytes')],
    [`spiffe://${'a'.repeat(256)}/x`, domain('must not be longer than 255 bytes')],
    ['', id('must not be empty')],
    ['spiffe:/td/x', id(scheme)],
    ['https://td/x', id(scheme)],
    ['SPIFFE://td/x', id(scheme)],
    ['Spiffe://td/x', id(scheme)],
    [' spiffe://td/x', id(scheme)],
    ['//td/x', id(scheme)],
    ['spiffe://', domain('must not be empty')],
    ['spiffe:///x', domain('must not be empty')],
    ['spiffe://TD/x', domain(domainRule)],
    ['spiffe://td:80/x', domain(domainRule)],
    ['spiffe://user@td/x', domain(domainRule)],
    ['spiffe://[::1]/x', domain(domainRule)],
    ['spiffe://t%64/x', domain(domainRule)],
    ['spiffe://t d/x', domain(domainRule)],
    ['spiffe://t\u00e4/x', domain(domainRule)],
    ['spiffe://td?q/x', domain(domainRule)],
    ['spiffe://td#f', domain(domainRule)],
    ['spiffe://td\n/x', domain(domainRule)],
    ['spiffe://td', path('must not be empty in a workload identity')],
    ['spiffe://td/', path(emptySegment)],
    ['spiffe://td/a/', path(emptySegment)],
    ['spiffe://td/a//b', path(emptySegment)],
    ['spiffe://td//a', path(emptySegment)],
    ['spiffe://td/./a', path(dotRule)],
    ['spiffe://td/a/..', path(dotRule)],
    ['spiffe://td/a/../b', path(dotRule)],
    ['spiffe://td/a%2fb', path(segmentRule)],
    ['spiffe://td/%2e%2e', path(segmentRule)],
    ['spiffe://td/a?q=1', path(segmentRule)],
    ['spiffe://td/a#f', path(segmentRule)],
    ['spiffe://td/a b', path(segmentRule)],
    ['spiffe://td/a\0', path(segmentRule)],
    ['spiffe://td/a\n', path(segmentRule)],
    ['spiffe://td/\u00e9', path(segmentRule)],
    ['spiffe://td/\u{1f511}', path(segmentRule)],
    ['spiffe://td/a:b', path(segmentRule)],
    ['spiffe://td/a@b', path(segmentRule)],
    ['spiffe://td/a\\b', path(segmentRule)],
  ])('%j', (text, want) => expect(outcome(() => parseSpiffeId(text))).toEqual(want));
});

test.each<[string, string, string, unknown]>([
  ['cluster.local', 'shop', 'cart', 'spiffe://cluster.local/ns/shop/sa/cart'],
  ['Cluster.local', 'shop', 'cart', domain(domainRule)],
  [
    'td',
    'a/b',
    'cart',
    {
      field: 'namespace',
      rule: 'it may contain only letters, digits, dots, dashes and underscores',
    },
  ],
  ['td', '..', 'cart', { field: 'namespace', rule: dotRule }],
  ['td', '', 'cart', { field: 'namespace', rule: 'must not be empty' }],
  [
    'td',
    'shop',
    'a/../b',
    {
      field: 'service account',
      rule: 'it may contain only letters, digits, dots, dashes and underscores',
    },
  ],
  ['td', 'shop', '', { field: 'service account', rule: 'must not be empty' }],
])('A23 serviceAccountId of %j %j %j', (trustDomain, namespace, serviceAccount, want) =>
  expect(
    outcome(() => formatSpiffeId(serviceAccountId(trustDomain, namespace, serviceAccount))),
  ).toEqual(want),
);

test('identities are the same only with the same trust domain and path', () => {
  const a = parseSpiffeId('spiffe://td/a');
  expect(sameSpiffeId(a, parseSpiffeId('spiffe://td/a'))).toBe(true);
  expect(sameSpiffeId(a, parseSpiffeId('spiffe://td/A'))).toBe(false);
  expect(sameSpiffeId(a, parseSpiffeId('spiffe://te/a'))).toBe(false);
});

test('a trust domain of one character and of 255 is taken', () => {
  expect(parseTrustDomain('a')).toBe('a');
  expect(parseTrustDomain('a'.repeat(255))).toBe('a'.repeat(255));
});

/** The standard's grammar as one expression, written apart from the parser. */
const GRAMMAR = /^spiffe:\/\/[a-z0-9._-]{1,255}(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._-]+)+$/;

test('mutated identities are refused with field and rule, or are their own text, exactly as the grammar says', () => {
  const seeds = [
    'spiffe://cluster.local/ns/shop/sa/cart',
    'spiffe://td/a',
    `spiffe://td/${'a/'.repeat(1000)}a`,
  ];
  const piece = fc.constantFrom(
    '/',
    '//',
    '.',
    '..',
    '/./',
    '%2e',
    '?',
    '#',
    '@',
    ':',
    'A',
    'é',
    '\0',
    '\n',
    ' ',
    'spiffe://',
    '🔑',
    '\ud800',
    '',
  );
  const changes = fc.array(fc.tuple(fc.nat(2050), fc.nat(4), piece), {
    minLength: 1,
    maxLength: 4,
  });
  const text = fc
    .tuple(fc.constantFrom(...seeds), changes)
    .map(([seed, list]) =>
      list.reduce(
        (each, [at, drop, put]) =>
          each.slice(0, at % (each.length + 1)) + put + each.slice((at % (each.length + 1)) + drop),
        seed,
      ),
    );
  fc.assert(
    fc.property(fc.oneof(text, fc.string({ unit: 'binary' })), (input) => {
      const found = outcome(() => parseSpiffeId(input));
      expect('path' in found).toBe(input.length <= 2048 && GRAMMAR.test(input));
      if ('path' in found) expect(formatSpiffeId(found)).toBe(input);
      else
        expect(found).toEqual({
          field: expect.stringMatching(/^(spiffe id|trust domain|path)$/),
          rule: expect.any(String),
        });
    }),
    { numRuns: RUNS },
  );
});
