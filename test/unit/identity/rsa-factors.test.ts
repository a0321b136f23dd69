import { checkPrimeSync, generateKeyPairSync, generatePrimeSync } from 'node:crypto';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { factorWeakness } from '../../../agent/identity/rsa-factors';
import { cpuMs } from '../../support/load';
import { rocaModulus } from '../../support/weak-rsa';

const modulusOf = (bits: number) =>
  Buffer.from(
    generateKeyPairSync('rsa', { modulusLength: bits }).publicKey.export({ format: 'jwk' }).n!,
    'base64url',
  );
const bytes = (n: bigint) => Buffer.from(n.toString(16).padStart(520, '0'), 'hex');

test.each([2048, 3072, 4096])('an honest modulus of %i bits has no weakness', (bits) =>
  expect(factorWeakness(modulusOf(bits))).toBeUndefined(),
);

test('a small factor is found', () => {
  const n = BigInt(`0x${modulusOf(2048).toString('hex')}`);
  for (const prime of [3n, 5n, 743n, 751n])
    expect(factorWeakness(bytes(n * prime))).toMatch(/small prime/);
});

test('primes that lie close together are found, far ones are not', () => {
  const p = generatePrimeSync(1024, { bigint: true });
  const next = (after: bigint) => {
    let q = after | 1n;
    while (!checkPrimeSync(q)) q += 2n;
    return q;
  };
  expect(factorWeakness(bytes(p * next(p + 2n)))).toMatch(/close together/);
  expect(factorWeakness(bytes(p * next(p + 2n ** 400n)))).toMatch(/close together/);
  expect(factorWeakness(bytes(p * next(p + 2n ** 1000n)))).toBeUndefined();
});

test('a modulus with the shape of ROCA is found', () =>
  expect(factorWeakness(rocaModulus())).toMatch(/ROCA/));

test('no odd number of 2048 bits takes longer than 50 ms', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 256, maxLength: 256 }), (random) => {
      random[0]! |= 0x80;
      random[255]! |= 1;
      const startedAt = cpuMs();
      factorWeakness(random);
      return cpuMs() - startedAt < 50;
    }),
    { numRuns: 500 },
  );
});
