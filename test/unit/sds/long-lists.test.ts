import { expect, test } from '@jest/globals';
import { atOnce } from '../../../agent/base/steps';
import { WatchedSource } from '../../../agent/base/watched';
import { type CrlSet, crlSetSteps } from '../../../agent/identity/crl';
import type { Pieces } from '../../../sds/grpc/pieces';
import { Secret } from '../../../sds/proto/generated/envoy/extensions/transport_sockets/tls/v3/secret';
import { SPIFFECertValidatorConfig } from '../../../sds/proto/generated/envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config';
import {
  DeltaDiscoveryResponse,
  DiscoveryResponse,
} from '../../../sds/proto/generated/envoy/service/discovery/v3/discovery';
import { X509BundlesResponse } from '../../../sds/proto/generated/workload';
import { encodeDelta, encodeSotw } from '../../../sds/secrets/codec';
import {
  rootsResource,
  type SecretResource,
  spiffeTrustResource,
} from '../../../sds/secrets/secret-resource';
import { x509BundlesAnswer } from '../../../sds/workload-api/x509-answers';
import { makeTestCa, TEST_NOW } from '../../support/certs';
import { parseCrl } from '../../support/parse-crl';
import { makeList } from '../../support/proxy-sets';
import { unavailableState } from '../../support/sds-world';

const ROOTS = Buffer.from('ROOTS\n');
/** Of some thousand revocations. */
const LISTS = { pem: Buffer.alloc(100_000, 'x'), version: '1' };
const resources: Record<string, SecretResource> = {
  ROOTCA: rootsResource('ROOTCA', ROOTS, LISTS, TEST_NOW),
  ALL: spiffeTrustResource(
    'ALL',
    [
      { name: 'example.org', rootsPem: ROOTS, lists: LISTS },
      { name: 'partner.example', rootsPem: ROOTS, lists: undefined },
    ],
    TEST_NOW,
  ),
};

/** How many octets of a message are not those of the lists themselves. */
const copied = (message: Pieces, lists: Uint8Array) =>
  message.filter((piece) => piece !== lists).reduce((sum, { length }) => sum + length, 0);
const contextOf = (secret: Uint8Array) => {
  const { name, type } = Secret.decode(secret);
  if (type?.$case !== 'validationContext') throw new Error('another secret');
  return { name, ...type.value };
};

test.each(Object.keys(resources))(
  'no stream that is sent %s with long lists has a copy of them',
  (name) => {
    const response = { nonce: 'n', resources: [resources[name]!], removed: [] };
    for (const message of [encodeSotw(response), encodeDelta(response)])
      expect(copied(message, LISTS.pem)).toBeLessThan(1_000);
  },
);

test('a response in pieces is what its parts are together', () => {
  const both = { nonce: 'n', resources: Object.values(resources), removed: ['gone'] };
  const sotw = DiscoveryResponse.decode(Buffer.concat(encodeSotw(both)));
  const delta = DeltaDiscoveryResponse.decode(Buffer.concat(encodeDelta(both)));
  expect([sotw.nonce, delta.nonce, delta.removedResources]).toEqual(['n', 'n', ['gone']]);
  expect(delta.resources.map(({ name, version }) => ({ name, version }))).toEqual(
    both.resources.map(({ name, version }) => ({ name, version })),
  );
  expect(delta.resources.map(({ resource }) => resource)).toEqual(sotw.resources);
  const [roots, all] = sotw.resources.map(({ value }) => contextOf(value));
  const inline = (value: Buffer) => ({ specifier: { $case: 'inlineBytes', value } });
  expect(roots).toMatchObject({
    name: 'ROOTCA',
    trustedCa: inline(ROOTS),
    onlyVerifyLeafCertCrl: true,
  });
  expect(roots!.crl).toEqual(inline(LISTS.pem));
  const config = SPIFFECertValidatorConfig.decode(all!.customValidatorConfig!.typedConfig!.value);
  expect(config.trustDomains).toEqual([
    { name: 'example.org', trustBundle: inline(Buffer.concat([ROOTS, LISTS.pem])) },
    { name: 'partner.example', trustBundle: inline(ROOTS) },
  ]);
});

test('a version tells roots, lists and names apart, and is the same for the same', () => {
  const version = (name: string, roots: string, lists: string | undefined) =>
    rootsResource(
      name,
      Buffer.from(roots),
      lists === undefined ? undefined : { ...LISTS, version: lists },
      TEST_NOW,
    ).version;
  const versions = [
    version('a', 'r', '1'),
    version('a', 'r', '2'),
    version('a', 'r1', ''),
    version('a', 'r', undefined),
    version('b', 'r', '1'),
  ];
  expect(new Set(versions).size).toBe(versions.length);
  expect(version('a', 'r', '1')).toBe(versions[0]);
});

test('an answer of the Workload API holds the lists that are in use, and no copy', async () => {
  const ca = await makeTestCa();
  const at = { thisUpdateAt: TEST_NOW, nextUpdateAt: TEST_NOW + 1_000 };
  const set = atOnce(crlSetSteps([parseCrl(makeList(ca, at))]));
  const { der } = set.lists[0]!;
  const offer = x509BundlesAnswer({
    state: new WatchedSource(unavailableState(ca.bundle)),
    id: { trustDomain: 'cluster.local', path: '/ns/shop/sa/cart' },
    crl: new WatchedSource<CrlSet | undefined>(set),
    federated: undefined,
    hint: '',
  });
  if (offer.kind !== 'answer') throw new Error(offer.kind);
  expect(offer.message).toContain(der);
  expect(X509BundlesResponse.decode(Buffer.concat(offer.message)).crl).toEqual([Buffer.from(der)]);
});
