import { isIP } from 'node:net';

/** The octets of an IPv4 (4) or IPv6 (16) address; undefined for any other text. A zone (`%eth0`) is left out. */
export function ipOctets(text: string): Uint8Array | undefined {
  const address = text.split('%', 1)[0]!;
  const version = isIP(address);
  if (version === 0) return undefined;
  if (version === 4) return Uint8Array.from(address.split('.').map(Number));
  const [head, tail] = address.split('::') as [string, string | undefined];
  const before = groups(head);
  const after = groups(tail ?? '');
  const zeros = new Array<number>(16 - before.length - after.length).fill(0);
  return Uint8Array.from([...before, ...zeros, ...after]);
}

function groups(text: string): number[] {
  if (text === '') return [];
  return text.split(':').flatMap((group) => {
    if (group.includes('.')) return group.split('.').map(Number);
    const value = Number.parseInt(group, 16);
    return [value >> 8, value & 0xff];
  });
}
