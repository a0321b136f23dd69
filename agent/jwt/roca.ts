/** Primes up to 167, without 2: the smallest product that the broken generator worked with. */
const PRIMES = [
  3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101,
  103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];
const GENERATOR = 65_537;

/**
 * Whether an RSA modulus has the mark of ROCA (CVE-2017-15361): smartcards and TPMs of one maker made keys that can be factored, and
 * every one of them is, modulo each small prime, a power of 65537. Of other keys one in 2^27 looks like that.
 *
 * @see Nemec et al., The Return of Coppersmith's Attack, section 2.2.
 */
export function hasRocaMark(modulus: bigint): boolean {
  return PRIMES.every((prime) => powers(prime).has(Number(modulus % BigInt(prime))));
}

function powers(prime: number): ReadonlySet<number> {
  const found = new Set<number>();
  for (let power = 1; !found.has(power); power = (power * GENERATOR) % prime) found.add(power);
  return found;
}
