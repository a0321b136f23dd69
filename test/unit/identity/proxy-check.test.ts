import { expect, test } from '@jest/globals';
import { derInteger, derSequence } from '../../../agent/base/der';
import { parseCertificate } from '../../../agent/identity/certificate';
import { encodeExtension } from '../../../agent/identity/extensions';
import { generateKeyPair } from '../../../agent/identity/keys';
import { proxyObstacle } from '../../../agent/identity/proxy-check';
import { issueLeaf, makeTestCa, TEST_NOW } from '../../support/certs';

/** Not among the sets that a real Envoy is given: with such a leaf it does not start. */
test('field A1: a leaf that promises a stapled OCSP answer is not for Envoy, which has none to staple', async () => {
  const root = await makeTestCa();
  const leafWith = async (...features: readonly number[]) => {
    const extension = encodeExtension(
      '1.3.6.1.5.5.7.1.24',
      false,
      derSequence(...features.map((each) => derInteger(each))),
    );
    const leaf = issueLeaf(root, {
      key: await generateKeyPair('ecdsa-p256'),
      extraExtensions: [extension],
    });
    const [chain, roots] = [[leaf], [root.certificateDer]].map((ders) =>
      ders.map((der) => parseCertificate(der)),
    );
    return proxyObstacle({ chain: chain!, roots: roots!, lists: undefined }, TEST_NOW);
  };
  expect(await leafWith(5)).toMatchObject({
    field: 'leaf',
    rule: expect.stringMatching(/^must not have the extension TLS feature /),
  });
  expect(await leafWith(17)).toBeUndefined();
});
