import { connect, type Socket } from 'node:net';

/** A client that sends any bytes it likes and never reads more than it is told to. */
export interface RawClient {
  readonly socket: Socket;
  send(...parts: readonly Uint8Array[]): void;
  /** Bytes that came so far. */
  received(): number;
  /** Whether the server has ended that stream, by a last frame or by a reset. */
  ended(stream: number): boolean;
  /** Octets of DATA that came on that stream. */
  dataBytes(stream: number): number;
  /** The error code with which the server reset that stream. */
  resetWith(stream: number): number | undefined;
  /** The error code of the server's GOAWAY. */
  goaway(): number | undefined;
  /** Resolves when the server has closed the connection. */
  readonly closed: Promise<void>;
  destroy(): void;
}

/** Connects. With `paused` it reads nothing, ever, so the server's writes pile up. */
export function rawConnect(
  path: string,
  options: { readonly paused?: boolean } = {},
): Promise<RawClient> {
  return rawClient(connect(path), 'connect', options);
}

/** The same on a socket that is being opened, once it tells that it is. */
export function rawClient(
  socket: Socket,
  opened: 'connect' | 'secureConnect',
  options: { readonly paused?: boolean } = {},
): Promise<RawClient> {
  return new Promise((done, failed) => {
    let received = 0;
    const scanner = createScanner();
    const closed = new Promise<void>((gone) => socket.on('close', () => gone()));
    socket.once('error', failed);
    socket.on(opened, () => {
      socket.off('error', failed);
      // From here on a reset is an answer like others: `closed` tells.
      socket.on('error', () => undefined);
      done({
        socket,
        send: (...parts) => socket.write(Buffer.concat(parts)),
        received: () => received,
        ended: (stream) => scanner.ended.has(stream),
        dataBytes: (stream) => scanner.data.get(stream) ?? 0,
        resetWith: (stream) => scanner.resets.get(stream),
        goaway: () => scanner.goaway,
        closed,
        destroy: () => socket.destroy(),
      });
    });
    if (options.paused) {
      socket.pause();
    } else {
      socket.on('data', (chunk) => {
        received += chunk.length;
        scanner.scan(chunk);
      });
    }
  });
}

/** Walks over frames and remembers what they say of their streams. */
function createScanner() {
  let rest: Buffer = Buffer.alloc(0);
  const scanner = {
    ended: new Set<number>(),
    data: new Map<number, number>(),
    resets: new Map<number, number>(),
    goaway: undefined as number | undefined,
    scan: (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      while (rest.length >= 9 && rest.length >= 9 + rest.readUIntBE(0, 3)) {
        const [length, type, flags, stream] = [
          rest.readUIntBE(0, 3),
          rest[3]!,
          rest[4]!,
          rest.readUInt32BE(5),
        ];
        const last = (type === TYPE.data || type === TYPE.headers) && (flags & END_STREAM) !== 0;
        if (last || type === TYPE.reset) scanner.ended.add(stream);
        if (type === TYPE.data) scanner.data.set(stream, (scanner.data.get(stream) ?? 0) + length);
        if (type === TYPE.reset) scanner.resets.set(stream, rest.readUInt32BE(9));
        if (type === TYPE.goaway) scanner.goaway = rest.readUInt32BE(13);
        rest = rest.subarray(9 + length);
      }
    },
  };
  return scanner;
}

const TYPE = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  push: 5,
  ping: 6,
  goaway: 7,
  window: 8,
  continuation: 9,
} as const;
export type FrameType = keyof typeof TYPE;

/** One HTTP/2 frame, whatever it says (RFC 9113 section 4.1). `length` lies about the payload. */
export function frame(
  type: FrameType | number,
  stream: number,
  payload: Uint8Array = new Uint8Array(),
  flags = 0,
  length = payload.length,
): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(length, 0, 3);
  head.writeUInt8(typeof type === 'number' ? type : TYPE[type], 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

export const END_STREAM = 0x1;
export const END_HEADERS = 0x4;

/** What a client begins with: the preface and empty SETTINGS. */
export const PREFACE = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  frame('settings', 0),
]);

const SERVICE = '/envoy.service.secret.v3.SecretDiscoveryService';

/** HEADERS that open a call. Further fields win over the usual ones. */
export function openCall(
  stream: number,
  method = 'StreamSecrets',
  fields: Readonly<Record<string, string>> = {},
  flags = END_HEADERS,
): Buffer {
  const all = {
    ':method': 'POST',
    ':scheme': 'http',
    ':path': `${SERVICE}/${method}`,
    ':authority': 'sds',
    'content-type': 'application/grpc',
    te: 'trailers',
    ...fields,
  };
  return frame('headers', stream, headerBlock(all), flags);
}

/** HPACK, every field literal and unindexed (RFC 7541 section 6.2.2). */
export function headerBlock(
  fields: Readonly<Record<string, string>> | readonly (readonly [string, string])[],
): Buffer {
  const pairs = Array.isArray(fields)
    ? (fields as readonly (readonly [string, string])[])
    : Object.entries(fields);
  return Buffer.concat(
    pairs.flatMap(([name, value]) => [Buffer.from([0]), hpackString(name), hpackString(value)]),
  );
}

function hpackString(text: string): Buffer {
  const bytes = Buffer.from(text);
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const prefix = [127];
  let rest = bytes.length - 127;
  for (; rest >= 128; rest >>>= 7) prefix.push((rest & 127) | 128);
  return Buffer.concat([Buffer.from([...prefix, rest]), bytes]);
}

/** One gRPC message in one DATA frame; `length` lies about the message, `compressed` sets its flag. */
export function message(
  stream: number,
  bytes: Uint8Array,
  options: {
    readonly length?: number;
    readonly compressed?: boolean;
    readonly flags?: number;
  } = {},
): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(options.compressed ? 1 : 0, 0);
  head.writeUInt32BE(options.length ?? bytes.length, 1);
  return frame('data', stream, Buffer.concat([head, bytes]), options.flags ?? 0);
}

export function reset(stream: number, code = 8): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(code);
  return frame('reset', stream, payload);
}
