import { Http2Error } from './http2-error';

/** Bits of the code of each octet (RFC 7541 appendix B). The code is canonical: among codes of one length they follow the octets. */
const BITS = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
  28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5,
  6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6,
  7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23,
  23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22,
  22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22,
  23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27,
  27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25,
  24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const MAX_BITS = 30;
/** So many bits of an octet that was begun may remain, all ones (RFC 7541 section 5.2). */
const MAX_PADDING = 7;

/** The codes of one length: the first of them, and the octets in the order of their codes. */
interface CodesOfLength {
  readonly first: number;
  readonly octets: readonly number[];
}

let codes: readonly CodesOfLength[] | undefined;

/**
 * Reads text in HPACK's Huffman code.
 *
 * @throws Http2Error COMPRESSION_ERROR where it holds no code, the end mark, or a padding that is none (RFC 7541 section 5.2).
 */
export function huffmanDecode(bytes: Uint8Array): string {
  codes ??= codesByLength();
  // No code is shorter than five bits.
  const out = Buffer.allocUnsafe(Math.ceil((bytes.length * 8) / 5));
  let length = 0;
  let code = 0;
  let bits = 0;
  for (const byte of bytes) {
    for (let shift = 7; shift >= 0; shift -= 1) {
      code = (code << 1) | ((byte >> shift) & 1);
      bits += 1;
      if (bits > MAX_BITS)
        throw new Http2Error('COMPRESSION_ERROR', 'a Huffman code must be one of HPACK');
      const { first, octets } = codes[bits]!;
      const octet = octets[code - first];
      if (octet === undefined) continue;
      out[length] = octet;
      length += 1;
      code = 0;
      bits = 0;
    }
  }
  if (bits > MAX_PADDING || code !== (1 << bits) - 1)
    throw new Http2Error('COMPRESSION_ERROR', 'Huffman padding must be ones, up to seven');
  return out.toString('latin1', 0, length);
}

function codesByLength(): CodesOfLength[] {
  const octetsOf = Array.from({ length: MAX_BITS + 1 }, (): number[] => []);
  for (const [octet, bits] of BITS.entries()) octetsOf[bits]!.push(octet);
  let next = 0;
  return octetsOf.map((octets) => {
    const first = next;
    next = (next + octets.length) << 1;
    return { first, octets };
  });
}
