import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, test } from '@jest/globals';
import { readPolicies } from '../../../agent/policy/read-policies';
import { formatProblem } from '../../../agent/policy/resources/problem';

/** A document, and why istiod refuses it; empty where it does not. */
type Recorded = readonly [document: string, refusal: string];

const recorded: readonly Recorded[] = JSON.parse(
  gunzipSync(readFileSync(join(__dirname, '../../recorded/istio-validation.json.gz'))).toString(
    'utf8',
  ),
);

/** What we say of each document. */
const judged = recorded.map(([document, refusal]) => {
  const { problems } = readPolicies([{ name: 'p.yaml', bytes: Buffer.from(document) }]);
  return { document, istiod: refusal, ours: problems.map(formatProblem).join('\n') };
});

/** What we refuse and istiod does not, by what we say of it. */
const STRICTER: readonly (readonly [why: string, ours: RegExp])[] = [
  ['an empty place in a list, from or to, which would take everything', /must not be empty/],
  ['an address with a zone, which Envoy does not compare', /must be an address/],
  ['a trust domain with a slash, which never matches', /must be a trust domain, without a \//],
  ['the number of an enum', /must be one of UNSET, DISABLE, PERMISSIVE, STRICT, not 3/],
  ['a port without a mode', /portLevelMtls must have at least one port/],
  ['a URL of no host or of no port', /must be an http or https URL/],
  ['private and symmetric keys, which istiod warns of', /is private or symmetric/],
  ['a key that is no set, which Envoy refuses', /must be a JSON Web Key Set/],
  ['two places of keys, which the CRD refuses', /must not stand beside jwksUri/],
  [
    'an endpoint without a host, which the documentation does not have',
    /must be 127\.0\.0\.1:PORT/,
  ],
  ['unknown fields', /is no field of this kind/],
  ['a port of no port', /number must be 1 to 65535/],
];

/** What istiod refuses and we do not read: it shapes traffic, and decides nothing about who may speak. */
const UNREAD = /connectionPool|inboundConnectionPool|outlierDetection|loadBalancer/i;

test('what istiod refuses is refused, and what it takes is taken', () => {
  const differing = judged.filter(({ document, istiod, ours }) => {
    if ((ours === '') === (istiod === '')) return false;
    return ours === '' ? !UNREAD.test(document) : !STRICTER.some(([, said]) => said.test(ours));
  });
  expect(recorded.length).toBeGreaterThan(2_000);
  expect(differing).toEqual([]);
});

test.each(STRICTER)('we are stricter: %s', (_, said) => {
  expect(judged.some(({ istiod, ours }) => istiod === '' && said.test(ours))).toBe(true);
});
