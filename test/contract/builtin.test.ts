import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { openAuthority } from '../../agent/authority/authority';
import { directEngine } from '../../agent/identity/direct-engine';
import type { KeyAlgorithm } from '../../agent/identity/keys';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { createBuiltinCa } from '../../ca-client/builtin/builtin-ca';
import { writeCaDir } from '../support/ca-dir';
import { makeTestCa, TEST_ID } from '../support/certs';
import { tempDir } from '../support/temp-dir';
import { testDeps } from '../support/test-deps';
import { until } from '../support/until';
import { describeCaClient } from './ca-client';

const id = parseSpiffeId(TEST_ID);

async function makeBuiltin(
  dir = join(tempDir(), 'ca'),
  rootAlgorithm: KeyAlgorithm = 'ecdsa-p256',
) {
  const deps = testDeps();
  const authority = await openAuthority(
    { dir, trustDomain: id.trustDomain, rootAlgorithm, engine: directEngine },
    deps,
  );
  return {
    ca: createBuiltinCa({ authority, caller: id }, deps),
    id,
    now: Date.now,
    close: () => authority.close(),
    authority,
  };
}

describeCaClient('builtin', () => makeBuiltin());

test('a changed signer reaches the listeners of each client of an authority, until they or their client end', async () => {
  const [old, next] = [await makeTestCa({ name: 'old' }), await makeTestCa({ name: 'next' })];
  const dir = join(tempDir(), 'ca');
  writeCaDir(dir, { signer: old, roots: [old, next] });
  const { ca, authority, close } = await makeBuiltin(dir);
  const deps = testDeps();
  const others = [
    createBuiltinCa({ authority, caller: id }, deps),
    createBuiltinCa({ authority, caller: id }, deps),
  ];
  const told: string[] = [];
  ca.onChange((what) => told.push(`first ${what}`));
  others[0]!.onChange((what) => told.push(`second ${what}`));
  others[1]!.onChange((what) => told.push(`closed ${what}`));
  others[0]!.onChange((what) => told.push(`stopped ${what}`))();
  await others[1]!.close();
  const key = await directEngine.generateKeyPair('ecdsa-p256');
  await ca.sign(
    { id, csrDer: await directEngine.createCsr(key, id), ttlSeconds: 60 },
    new AbortController().signal,
  );
  writeCaDir(dir, { signer: next });
  await until('the new signer', async () => told.length > 0);
  expect(told).toEqual(['first signer', 'second signer']);
  await close();
});

test('a request for another identity than the caller is refused by name, before its CSR is read', async () => {
  const { ca, close } = await makeBuiltin();
  const other = parseSpiffeId('spiffe://cluster.local/ns/shop/sa/admin');
  await expect(
    ca.sign({ id: other, csrDer: new Uint8Array(), ttlSeconds: 60 }, new AbortController().signal),
  ).rejects.toMatchObject({
    code: 'ERR_CA_REJECTED',
    retry: 'slow',
    field: 'request id',
    rule: "must be the caller's own, not spiffe://cluster.local/ns/shop/sa/admin",
  });
  await close();
});
