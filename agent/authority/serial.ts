import { randomBytes } from 'node:crypto';

const OCTETS = 16;
/** Random octets are asked for by the page: the way to the generator takes longer than the octets. Each is used once. */
const PAGE_OCTETS = 256 * OCTETS;
let page = Buffer.alloc(0);

function randomOctets(size: number): Buffer {
  if (page.length < size) page = randomBytes(PAGE_OCTETS);
  const octets = Buffer.from(page.subarray(0, size));
  page = page.subarray(size);
  return octets;
}

/**
 * A certificate's serial number: 127 random bits, positive, big endian without leading zeros; 1 to 16 octets.
 *
 * RFC 5280 section 4.1.2.2 allows 20 octets and wants positive numbers; 127 bits fit 16 octets with the sign bit clear, and make a second
 * equal number as good as impossible without keeping count, so processes that share a CA directory need not talk to each other.
 */
export function randomSerial(random: (size: number) => Buffer = randomOctets): Uint8Array {
  for (;;) {
    const octets = random(OCTETS);
    octets[0]! &= 0x7f;
    const first = octets.findIndex((octet) => octet !== 0);
    if (first >= 0) return octets.subarray(first);
  }
}
