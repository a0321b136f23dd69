import { randomBytes } from 'node:crypto';

/**
 * A certificate's serial number: 127 random bits, positive, big endian without leading zeros; 1 to 16 octets.
 *
 * RFC 5280 section 4.1.2.2 allows 20 octets and wants positive numbers; 127 bits fit 16 octets with the sign bit clear, and make a second
 * equal number as good as impossible without keeping count, so processes that share a CA directory need not talk to each other.
 */
export function randomSerial(random: (size: number) => Buffer = randomBytes): Uint8Array {
  for (;;) {
    const octets = random(16);
    octets[0]! &= 0x7f;
    const first = octets.findIndex((octet) => octet !== 0);
    if (first >= 0) return octets.subarray(first);
  }
}
