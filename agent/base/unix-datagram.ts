import { openLibc } from './libc';

/** Sends one datagram. False where it did not leave, whatever the reason. Blocks for nobody. */
export type SendDatagram = (payload: Uint8Array) => boolean;

/** Of Linux, the same on every processor that we run on. @see socket(2), send(2), unix(7) */
export const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 0o2000002;
const MSG_DONTWAIT_NOSIGNAL = 0x4040;

interface Sockets {
  socket(family: number, type: number, protocol: number): number;
  sendto(
    fd: number,
    payload: Uint8Array,
    length: number,
    flags: number,
    address: Uint8Array,
    addressLength: number,
  ): number | bigint;
  close(fd: number): number;
}

/**
 * How to send datagrams to a Unix socket, where this runtime can: Bun on Linux, by the C library. Node's `dgram` knows UDP only.
 *
 * @param name  A path, or an abstract name after `@`; at most 107 bytes.
 */
export function unixDatagrams(name: string): SendDatagram | undefined {
  const c = openLibc<Sockets>({
    socket: { args: ['i32', 'i32', 'i32'], returns: 'i32' },
    sendto: { args: ['i32', 'ptr', 'usize', 'i32', 'ptr', 'u32'], returns: 'i64' },
    close: { args: ['i32'], returns: 'i32' },
  });
  if (c === undefined) return undefined;
  const address = socketAddress(name);
  return (payload) => {
    const fd = c.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
    if (fd < 0) return false;
    try {
      return (
        Number(
          c.sendto(fd, payload, payload.length, MSG_DONTWAIT_NOSIGNAL, address, address.length),
        ) === payload.length
      );
    } finally {
      c.close(fd);
    }
  };
}

/** `struct sockaddr_un`: an abstract name begins with a NUL and ends with the address, a path ends with a NUL. */
export function socketAddress(name: string): Uint8Array {
  const family = Buffer.alloc(2);
  new Uint16Array(family.buffer, family.byteOffset, 1)[0] = AF_UNIX;
  const path = name.startsWith('@') ? `\0${name.slice(1)}` : `${name}\0`;
  return Buffer.concat([family, Buffer.from(path)]);
}
