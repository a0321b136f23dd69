import { ipOctets } from '../../base/ip-address';
import type { JsonObject } from '../resources/resource';

/** Of an address without a zone. */
function octetsOf(text: string): Uint8Array | undefined {
  return text.includes('%') ? undefined : ipOctets(text);
}

export function isAddress(text: string): boolean {
  return octetsOf(text) !== undefined;
}

/**
 * Whether an address is in an `envoy.config.core.v3.CidrRange`. Bits behind the prefix do not count. An IPv4 address
 * inside IPv6, `::ffff:192.0.2.1`, is of IPv6 and in no range of IPv4, as Envoy has it.
 */
export function isInRange(address: string | undefined, range: JsonObject): boolean {
  const own = address === undefined ? undefined : octetsOf(address);
  const of = octetsOf(String(range.addressPrefix));
  if (!own || own.length !== of?.length) return false;
  const bits = Number(range.prefixLen ?? 0);
  return own.every((octet, index) => {
    const counted = Math.min(8, Math.max(0, bits - index * 8));
    const mask = (0xff << (8 - counted)) & 0xff;
    return (octet & mask) === (of[index]! & mask);
  });
}
