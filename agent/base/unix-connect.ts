import { openLibc } from './libc';
import { AF_UNIX, socketAddress } from './unix-datagram';

/** Of Linux, the same on every processor that we run on. @see socket(2), errno(3) */
const SOCK_STREAM_CLOEXEC_NONBLOCK = 0o2004001;
const ECONNREFUSED = 111;

interface Connections {
  socket(family: number, type: number, protocol: number): number;
  connect(fd: number, address: Uint8Array, addressLength: number): number;
  close(fd: number): number;
  /** Of the GNU C library and of musl. */
  __errno_location(): number;
  memcpy(to: Uint8Array, from: number, length: number): unknown;
}

/**
 * Whether connect(2) itself says ECONNREFUSED of a socket: nobody listens. Bun says it of whatever else hinders too: a full backlog, a living
 * socket of another type. True where this runtime cannot ask, hence Node.js, which says what the system said.
 *
 * @param path  At most 107 bytes.
 */
export function isRefusedBySystem(path: string): boolean {
  const c = openLibc<Connections>({
    socket: { args: ['i32', 'i32', 'i32'], returns: 'i32' },
    connect: { args: ['i32', 'ptr', 'u32'], returns: 'i32' },
    close: { args: ['i32'], returns: 'i32' },
    __errno_location: { args: [], returns: 'ptr' },
    memcpy: { args: ['ptr', 'ptr', 'usize'], returns: 'ptr' },
  });
  if (c === undefined) return true;
  const address = socketAddress(path);
  const [place, errno] = [c.__errno_location(), new Int32Array(1)];
  const fd = c.socket(AF_UNIX, SOCK_STREAM_CLOEXEC_NONBLOCK, 0);
  if (fd < 0) return false;
  try {
    if (c.connect(fd, address, address.length) === 0) return false;
    c.memcpy(new Uint8Array(errno.buffer), place, 4);
    return errno[0] === ECONNREFUSED;
  } finally {
    c.close(fd);
  }
}
