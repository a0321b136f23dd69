import { randomBytes } from 'node:crypto';

/** A modulus of 2048 bits that is a power of 65537 modulo every small prime, as those of CVE-2017-15361 are; its factors nobody knows. */
export function rocaModulus(): Buffer {
  // Of the generator's keys of 1984 to 3936 bits this is so for the first 126 primes. Seven more keep the modulus, which is no product of
  // two primes here, free of the small factors that it would be refused for first.
  let product = 2n;
  for (let each = 3n; each < 752n; each += 2n) {
    let prime = true;
    for (let divisor = 3n; divisor * divisor <= each; divisor += 2n)
      if (each % divisor === 0n) prime = false;
    if (prime) product *= each;
  }
  let power = 1n;
  for (let each = 0; each < 12_345; each += 1) power = (power * 65_537n) % product;
  const top = (1n << 2047n) | BigInt(`0x${randomBytes(200).toString('hex')}`);
  const modulus = top - (top % product) + product + power;
  return Buffer.from(modulus.toString(16), 'hex');
}
