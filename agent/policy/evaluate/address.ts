import { isIP } from 'node:net';
import type { JsonObject } from '../resources/resource';

/** The octets of an address, 4 or 16; undefined where it is none. */
function octetsOf(text: string): readonly number[] | undefined {
  if (isIP(text) === 4) return text.split('.').map(Number);
  if (isIP(text) !== 6 || text.includes('%')) return undefined;
  const short = new URL(`http://[${text}]/`).hostname.slice(1, -1);
  const [before = '', after] = short.split('::');
  const groups = (part: string) => (part === '' ? [] : part.split(':'));
  const [left, right] = [groups(before), groups(after ?? '')];
  const zeros = after === undefined ? [] : Array(8 - left.length - right.length).fill('0');
  return [...left, ...zeros, ...right].flatMap((group) => {
    const value = Number.parseInt(group, 16);
    return [value >> 8, value & 255];
  });
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
