import { generateKeyPairSync, type KeyPairKeyObjectResult } from 'node:crypto';
import { expect, test } from '@jest/globals';
import { CompactSign } from 'jose';
import { parseKeySet, TOKEN_ALGORITHMS } from '../../../agent/jwt/key-set';

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const ec = (namedCurve: string) => generateKeyPairSync('ec', { namedCurve });
const ed25519 = generateKeyPairSync('ed25519');
const setOf = (keys: readonly object[]) => JSON.stringify({ keys });
const rsaJwk = rsa.publicKey.export({ format: 'jwk' });

test('a set holds 100 keys at most', async () => {
  const keys = (count: number) =>
    setOf(Array.from({ length: count }, (_, index) => ({ ...rsaJwk, kid: String(index) })));
  expect((await parseKeySet(keys(100), 'keys', TOKEN_ALGORITHMS)).kids).toHaveLength(100);
  await expect(parseKeySet(keys(101), 'keys', TOKEN_ALGORITHMS)).rejects.toMatchObject({
    code: 'ERR_PARSE',
    rule: 'must not hold more than 100 keys',
  });
});

test.each<[string, KeyPairKeyObjectResult]>([
  ['ES256', ec('P-256')],
  ['ES384', ec('P-384')],
  ['ES512', ec('P-521')],
  ['RS256', rsa],
  ['RS384', rsa],
  ['RS512', rsa],
  ['PS256', rsa],
  ['PS384', rsa],
  ['PS512', rsa],
  ['EdDSA', ed25519],
  ['Ed25519', ed25519],
])('a token signed with %s verifies', async (alg, { publicKey, privateKey }) => {
  const keys = await parseKeySet(
    setOf([publicKey.export({ format: 'jwk' })]),
    'keys',
    TOKEN_ALGORITHMS,
  );
  const token = await new CompactSign(Buffer.from('{"sub":"cart"}'))
    .setProtectedHeader({ alg })
    .sign(privateKey);
  expect(Buffer.from(await keys.verify(token)).toString()).toBe('{"sub":"cart"}');
});
