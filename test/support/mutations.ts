import fc from 'fast-check';

/** How often a property is tried: 10,000 times, ten times that at length. */
export const RUNS = process.env.KEYTURN_TEST === 'full' ? 100_000 : 10_000;

type Mutation = {
  readonly kind: 'flip' | 'set' | 'insert' | 'remove' | 'repeat' | 'cut';
  readonly at: number;
  readonly value: number;
  readonly length: number;
};

const mutation: fc.Arbitrary<Mutation> = fc.record({
  kind: fc.constantFrom('flip', 'set', 'insert', 'remove', 'repeat', 'cut'),
  // Unbiased, since small numbers would all strike the same few octets.
  at: fc.noBias(fc.nat(999_999)).map((millionths) => millionths / 1_000_000),
  value: fc.integer({ min: 0, max: 255 }),
  length: fc.integer({ min: 1, max: 24 }),
});

/** Bytes that came from good ones by one to four changes: a bit, an octet, a few octets in, out or doubled, the end cut off. */
export function mutated(seeds: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> {
  return fc
    .tuple(fc.constantFrom(...seeds), fc.array(mutation, { minLength: 1, maxLength: 4 }))
    .map(([seed, mutations]) => mutations.reduce<Uint8Array>(mutate, seed));
}

function mutate(bytes: Uint8Array, { kind, at, value, length }: Mutation): Uint8Array {
  const index = Math.floor(at * bytes.length);
  const [head, rest] = [bytes.subarray(0, index), bytes.subarray(index)];
  if (kind === 'cut') return Uint8Array.from(head);
  if (kind === 'insert') return Buffer.concat([head, Buffer.alloc((length % 4) + 1, value), rest]);
  if (kind === 'remove') return Buffer.concat([head, rest.subarray(length)]);
  if (kind === 'repeat') return Buffer.concat([head, rest.subarray(0, length), rest]);
  const copy = Buffer.from(bytes);
  if (copy.length > 0) copy[index] = kind === 'set' ? value : copy[index]! ^ (1 << (value % 8));
  return copy;
}
