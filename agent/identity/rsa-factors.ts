/** The bound that others use for this. */
const SMALL_BELOW = 752;
/** With as many, a modulus of honest primes looks like one of ROCA's with a chance below 2^-60. */
const ROCA_BELOW = 168;
/** Steps of Fermat's way to a factor: each prime that is found lies within some 2^(bits/4) of the other. */
const FERMAT_STEPS = 100;

/**
 * Why an RSA modulus can be factored by anybody, as a rule that it breaks; undefined where it cannot by one of the known faults of key
 * generators: a small factor, the primes of CVE-2017-15361 (ROCA), two primes that lie close together (CVE-2022-26320). Takes less than
 * a millisecond for 4096 bits.
 *
 * @param modulus  Big endian, odd.
 */
export function factorWeakness(modulus: Uint8Array): string | undefined {
  const n = BigInt(`0x${Buffer.from(modulus).toString('hex')}`);
  let roca = true;
  smallPrimes ??= primesBelow(SMALL_BELOW);
  for (const prime of smallPrimes) {
    const rest = Number(n % BigInt(prime));
    if (rest === 0) return 'must not have a small prime factor';
    roca &&= prime >= ROCA_BELOW || powersOf65537(prime).has(rest);
  }
  if (roca) return 'must not be made by a generator with the fault ROCA (CVE-2017-15361)';
  return hasClosePrimes(n) ? 'must not be of two primes that lie close together' : undefined;
}

/** Made with the first RSA key: a start with others has no use for them. */
let smallPrimes: readonly number[] | undefined;

function primesBelow(limit: number): number[] {
  const primes: number[] = [];
  for (let each = 3; each < limit; each += 2)
    if (primes.every((prime) => each % prime !== 0)) primes.push(each);
  return primes;
}

const powers = new Map<number, ReadonlySet<number>>();

/** What 65537 generates modulo a prime: ROCA's primes are powers of it modulo many small primes at once, and so is their product. */
function powersOf65537(prime: number): ReadonlySet<number> {
  const known = powers.get(prime);
  if (known !== undefined) return known;
  const found = new Set<number>();
  for (let power = 1; !found.has(power); power = (power * 65_537) % prime) found.add(power);
  powers.set(prime, found);
  return found;
}

function hasClosePrimes(n: bigint): boolean {
  let a = squareRoot(n);
  if (a * a < n) a += 1n;
  for (let step = 0; step < FERMAT_STEPS; step += 1, a += 1n) {
    const rest = a * a - n;
    // A square ends in one of twelve of 64 residues; the root is dear.
    if (!SQUARES_MOD_64.has(Number(rest & 63n))) continue;
    const root = squareRoot(rest);
    if (root * root === rest) return true;
  }
  return false;
}

const SQUARES_MOD_64 = new Set(Array.from({ length: 64 }, (_, each) => (each * each) % 64));

/** Rounded down, by Newton's way from above. */
function squareRoot(value: bigint): bigint {
  if (value < 2n) return value;
  let root = 1n << BigInt(value.toString(16).length * 2 + 1);
  for (;;) {
    const next = (root + value / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}
