import { isIP } from 'node:net';
import type { JsonObject } from '../resources/resource';

/**
 * An address, or an address with the length of its prefix, as `envoy.config.core.v3.CidrRange`. Bits
 * behind the prefix stay as they were written: Envoy masks them.
 *
 * @returns undefined where it is neither.
 */
export function cidrRange(text: string): JsonObject | undefined {
  const [address = '', bits, ...rest] = text.split('/');
  const family = isIP(address);
  if (family === 0 || rest.length > 0 || address.includes('%')) return undefined;
  const most = family === 4 ? 32 : 128;
  if (bits !== undefined && !/^(0|[1-9]\d{0,2})$/.test(bits)) return undefined;
  const prefixLen = bits === undefined ? most : Number(bits);
  if (prefixLen > most) return undefined;
  return { addressPrefix: family === 4 ? address : shortIpv6(address), prefixLen };
}

/** RFC 5952, and dotted quads behind `::ffff:`, section 5. */
function shortIpv6(address: string): string {
  const short = new URL(`http://[${address}]/`).hostname.slice(1, -1);
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(short);
  if (!mapped) return short;
  const [high, low] = [Number.parseInt(mapped[1]!, 16), Number.parseInt(mapped[2]!, 16)];
  return `::ffff:${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`;
}
