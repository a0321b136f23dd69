import { expect, jest, test } from '@jest/globals';
import { loadEngine } from '../../../agent/identity/load-engine';
import { parseSpiffeId } from '../../../agent/identity/spiffe-id';
import { TEST_ID } from '../../support/certs';

for (const name of ['@peculiar/x509', '@peculiar/webcrypto', 'reflect-metadata']) {
  jest.mock(name, () => {
    throw new Error('loaded');
  });
}

test('the direct engine works without @peculiar/x509, which the others load', async () => {
  const engine = await loadEngine('direct');
  const csr = await engine.createCsr(
    await engine.generateKeyPair('ecdsa-p256'),
    parseSpiffeId(TEST_ID),
  );
  expect((await engine.readCsr(csr)).uris).toEqual([TEST_ID]);
  await expect(loadEngine('webcrypto')).rejects.toThrow('loaded');
});
