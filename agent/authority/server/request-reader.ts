import { RefusedCall } from './status';

const PREFIX_BYTES = 5;

/**
 * Puts one gRPC message together: a flag, its length in four octets, and so many octets. Nothing is kept of a message that says that it
 * is too long.
 */
export class RequestReader {
  readonly #chunks: Buffer[] = [];
  #bytes = 0;
  #wanted: number | undefined;

  constructor(private readonly maxBytes: number) {}

  /** @throws RefusedCall RESOURCE_EXHAUSTED, UNIMPLEMENTED where it is compressed, INVALID_ARGUMENT where more follows than one message. */
  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#wanted === undefined && this.#bytes >= PREFIX_BYTES)
      this.#wanted = PREFIX_BYTES + this.#readPrefix();
    if (this.#wanted !== undefined && this.#bytes > this.#wanted)
      throw malformed('must be one message');
  }

  /** The message. @throws RefusedCall INVALID_ARGUMENT where it has not arrived whole. */
  finish(): Buffer {
    if (this.#wanted === undefined || this.#bytes < this.#wanted)
      throw malformed('must be one whole message');
    return Buffer.concat(this.#chunks).subarray(PREFIX_BYTES);
  }

  #readPrefix(): number {
    const prefix = Buffer.concat(this.#chunks).subarray(0, PREFIX_BYTES);
    const length = prefix.readUInt32BE(1);
    if (length > this.maxBytes)
      throw new RefusedCall(
        'RESOURCE_EXHAUSTED',
        `request: must not be longer than ${this.maxBytes} bytes`,
      );
    // No encoding is offered, so none may be used: what unpacks to a gigabyte is never unpacked.
    if (prefix[0] !== 0) throw new RefusedCall('UNIMPLEMENTED', 'request: must not be compressed');
    return length;
  }
}

function malformed(rule: string): RefusedCall {
  return new RefusedCall('INVALID_ARGUMENT', `request: ${rule}`);
}
