import { GrpcStatus } from '../../agent/http2/grpc-status';

/** Why a call's messages cannot be read any further. */
export class UnreadableMessage extends Error {
  constructor(
    readonly code: GrpcStatus,
    message: string,
  ) {
    super(message);
  }
}

/** What a request may be packed in, as `grpc-accept-encoding` says it. */
export const ENCODINGS = 'identity,deflate,gzip';

const PREFIX_BYTES = 5;
const FIRST_ROOM = 1_024;

/**
 * Takes a body apart into messages: each a flag, its length in four octets, and so many octets. Room grows with what has come, not with
 * what was announced.
 *
 * @see https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md "Length-Prefixed-Message", "Compression"
 */
export class MessageReader {
  #room: Buffer = Buffer.alloc(0);
  #bytes = 0;

  /** @param encoding  Of `grpc-encoding`; undefined where there is none. */
  constructor(
    private readonly maxBytes: number,
    private readonly encoding: string | undefined,
  ) {}

  /** Whether a message has begun and is not whole. */
  get amid(): boolean {
    return this.#bytes > 0;
  }

  /** What it takes of memory. */
  get heldBytes(): number {
    return this.#room.length;
  }

  /** The messages that are whole now. @throws UnreadableMessage */
  *read(chunk: Buffer): Generator<Buffer> {
    let rest = chunk;
    while (rest.length > 0) {
      const wanted = PREFIX_BYTES + (this.#bytes < PREFIX_BYTES ? 0 : this.#length());
      rest = this.#keep(rest, wanted - this.#bytes);
      if (this.#bytes < PREFIX_BYTES || this.#bytes < PREFIX_BYTES + this.#length()) continue;
      const message = this.#unpack(this.#room.subarray(PREFIX_BYTES, this.#bytes));
      this.#bytes = 0;
      this.#room = Buffer.alloc(0);
      yield message;
    }
  }

  /** Keeps at most so many octets, and returns the others. */
  #keep(chunk: Buffer, count: number): Buffer {
    const part = chunk.subarray(0, count);
    const needed = this.#bytes + part.length;
    if (needed > this.#room.length) {
      const room = Buffer.allocUnsafe(Math.max(FIRST_ROOM, needed, this.#room.length * 2));
      this.#room.copy(room, 0, 0, this.#bytes);
      this.#room = room;
    }
    part.copy(this.#room, this.#bytes);
    this.#bytes = needed;
    return chunk.subarray(part.length);
  }

  #length(): number {
    const length = this.#room.readUInt32BE(1);
    if (length > this.maxBytes) {
      throw new UnreadableMessage(
        GrpcStatus.RESOURCE_EXHAUSTED,
        `request: must not be longer than ${this.maxBytes} bytes`,
      );
    }
    return length;
  }

  #unpack(bytes: Buffer): Buffer {
    switch (this.#room[0]) {
      case 0:
        return bytes;
      case 1:
        return this.#inflate(bytes);
      default:
        throw new UnreadableMessage(
          GrpcStatus.INTERNAL,
          'request: must begin with the flag 0 or 1',
        );
    }
  }

  #inflate(bytes: Buffer): Buffer {
    // Loaded with the first packed message: hardly any client packs a request.
    const { gunzipSync, inflateSync } = process.getBuiltinModule('node:zlib');
    const unpack = { gzip: gunzipSync, deflate: inflateSync }[this.encoding ?? ''];
    if (unpack === undefined)
      throw new UnreadableMessage(
        GrpcStatus.UNIMPLEMENTED,
        `request: must be packed as one of ${ENCODINGS}`,
      );
    try {
      return unpack(bytes, { maxOutputLength: this.maxBytes });
    } catch (caught) {
      if ((caught as NodeJS.ErrnoException).code !== 'ERR_BUFFER_TOO_LARGE') {
        throw new UnreadableMessage(GrpcStatus.INTERNAL, 'request: cannot be unpacked');
      }
      throw new UnreadableMessage(
        GrpcStatus.RESOURCE_EXHAUSTED,
        `request: must not be longer than ${this.maxBytes} bytes`,
      );
    }
  }
}
