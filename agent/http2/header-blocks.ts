import { contentOf, FLAG, FRAME, type Frame } from './frames';
import { type Field, HpackDecoder } from './hpack';
import { Http2Error } from './http2-error';

/** A header block as it comes over the wire, compressed, and its fields as RFC 9113 section 6.5.2 counts them. */
const MAX_BLOCK_BYTES = 64 * 1024;
export const MAX_LIST_BYTES: number = 64 * 1024;

/** A header block that is whole. */
export interface HeaderBlock {
  readonly stream: number;
  readonly endStream: boolean;
  /** Undefined where they are larger than `MAX_LIST_BYTES`, which does not hinder the next block. */
  readonly fields: readonly Field[] | undefined;
}

/** Puts the header blocks of one direction of a connection together, and unpacks them. */
export class HeaderBlocks {
  readonly #decoder = new HpackDecoder(MAX_LIST_BYTES);
  #open: Omit<HeaderBlock, 'fields'> | undefined;
  #parts: Buffer[] = [];
  #bytes = 0;

  /** @throws Http2Error where a block has begun that another frame must not interrupt (RFC 9113 section 4.3). */
  assertNext({ type, stream }: Frame): void {
    if (this.#open && (type !== FRAME.CONTINUATION || stream !== this.#open.stream))
      throw new Http2Error('PROTOCOL_ERROR', 'a header block must not be interrupted');
  }

  /**
   * Takes HEADERS or CONTINUATION. Returns the block that is whole with it.
   *
   * @throws Http2Error of the connection.
   */
  take(each: Frame): HeaderBlock | undefined {
    if (each.type === FRAME.HEADERS) {
      this.#open = { stream: each.stream, endStream: (each.flags & FLAG.END_STREAM) !== 0 };
      return this.#add(this.#open, contentOf(each), each.flags);
    }
    if (!this.#open) throw new Http2Error('PROTOCOL_ERROR', 'CONTINUATION must follow HEADERS');
    return this.#add(this.#open, each.payload, each.flags);
  }

  /** Gives back what it holds of a block that never comes to its end. */
  drop(): void {
    this.#open = undefined;
    this.#parts = [];
    this.#bytes = 0;
  }

  #add(open: Omit<HeaderBlock, 'fields'>, part: Buffer, flags: number): HeaderBlock | undefined {
    this.#bytes += part.length;
    if (this.#bytes > MAX_BLOCK_BYTES) {
      throw new Http2Error(
        'ENHANCE_YOUR_CALM',
        `a header block must not be longer than ${MAX_BLOCK_BYTES} bytes`,
      );
    }
    if ((flags & FLAG.END_HEADERS) === 0) {
      this.#parts.push(Buffer.from(part));
      return undefined;
    }
    const block = this.#parts.length === 0 ? part : Buffer.concat([...this.#parts, part]);
    this.drop();
    return { ...open, fields: this.#decoder.decode(block) };
  }
}
