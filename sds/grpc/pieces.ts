import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';

/**
 * A message of protobuf in pieces that follow each other. What is long and shared, such as revocation lists of tens of megabytes, is one of
 * them: no message around it, and no stream that sends it, has a copy of its own.
 */
export type Pieces = readonly Uint8Array[];

/** Octets of all of them. */
export function lengthOf(pieces: Pieces): number {
  return pieces.reduce((sum, { length }) => sum + length, 0);
}

/** One field of a message: bytes, a string or another message. Fields of a message may follow each other in any order. */
export function field(number: number, content: Pieces): Pieces {
  const head = new BinaryWriter().tag(number, WireType.LengthDelimited).uint32(lengthOf(content));
  return [head.finish(), ...content];
}

/** Where they are short together they are one: that many streams send it. */
const SHORT_BYTES = 64 * 1024;

/** The same octets in no more pieces than are worth it. */
export function compact(pieces: Pieces): Pieces {
  return lengthOf(pieces) <= SHORT_BYTES ? [Buffer.concat(pieces)] : pieces;
}

export function areEqual(one: Pieces, other: Pieces): boolean {
  return (
    one.length === other.length &&
    one.every((each, index) => each === other[index] || Buffer.compare(each, other[index]!) === 0)
  );
}
