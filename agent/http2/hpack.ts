import { Http2Error } from './http2-error';
import { huffmanDecode } from './huffman';

/** A header field; the value's octets as latin1. */
export type Field = readonly [name: string, value: string];

/** RFC 7541 appendix A, name and value, from index 1 on. */
const STATIC_TABLE: readonly Field[] = [
  [':authority', ''],
  [':method', 'GET'],
  [':method', 'POST'],
  [':path', '/'],
  [':path', '/index.html'],
  [':scheme', 'http'],
  [':scheme', 'https'],
  ...['200', '204', '206', '304', '400', '404', '500'].map((status): Field => [':status', status]),
  ['accept-charset', ''],
  ['accept-encoding', 'gzip, deflate'],
  ...[
    'accept-language',
    'accept-ranges',
    'accept',
    'access-control-allow-origin',
    'age',
    'allow',
    'authorization',
    'cache-control',
    'content-disposition',
    'content-encoding',
    'content-language',
    'content-length',
    'content-location',
    'content-range',
    'content-type',
    'cookie',
    'date',
    'etag',
    'expect',
    'expires',
    'from',
    'host',
    'if-match',
    'if-modified-since',
    'if-none-match',
    'if-range',
    'if-unmodified-since',
    'last-modified',
    'link',
    'location',
    'max-forwards',
    'proxy-authenticate',
    'proxy-authorization',
    'range',
    'referer',
    'refresh',
    'retry-after',
    'server',
    'set-cookie',
    'strict-transport-security',
    'transfer-encoding',
    'user-agent',
    'vary',
    'via',
    'www-authenticate',
  ].map((name): Field => [name, '']),
];
/** What a field weighs beside its octets (RFC 7541 section 4.1, RFC 9113 section 6.5.2). */
const FIELD_OVERHEAD = 32;
/** The size of the table of recent fields that HTTP/2 begins with; our SETTINGS leave it. */
const TABLE_BYTES = 4_096;
/** Larger numbers are in no header block that we take. */
const MAX_INTEGER = 2 ** 24;

/** The reading half of HPACK for one connection: it remembers fields from one block to the next (RFC 7541). */
export class HpackDecoder {
  /** Newest last. */
  readonly #recent: Field[] = [];
  #bytes = 0;
  #maxBytes = TABLE_BYTES;

  /** @param maxListBytes  Of one list of fields as RFC 9113 section 6.5.2 counts them. */
  constructor(private readonly maxListBytes: number) {}

  /**
   * The fields of a whole block, in order; undefined where they are larger than allowed, which does not hinder the next block.
   *
   * @throws Http2Error COMPRESSION_ERROR: nothing that follows can be read.
   */
  decode(block: Uint8Array): readonly Field[] | undefined {
    const input = new BlockReader(block);
    const fields: Field[] = [];
    let bytes = 0;
    while (!input.done) {
      const field = this.#readField(input, bytes === 0);
      if (field === undefined) continue;
      bytes += weightOf(field);
      if (bytes <= this.maxListBytes) fields.push(field);
    }
    return bytes <= this.maxListBytes ? fields : undefined;
  }

  /** The next field; undefined after a change of the table's size, which may stand at the beginning only (RFC 7541 section 4.2). */
  #readField(input: BlockReader, atBeginning: boolean): Field | undefined {
    const kind = input.peek();
    if ((kind & 0x80) !== 0) return this.#at(input.integer(7));
    if ((kind & 0x40) !== 0) {
      const field = this.#literal(input, 6);
      this.#remember(field);
      return field;
    }
    if ((kind & 0x20) === 0) return this.#literal(input, 4);
    const size = input.integer(5);
    if (!atBeginning || size > TABLE_BYTES)
      throw new Http2Error(
        'COMPRESSION_ERROR',
        'the table of HPACK must not be larger than allowed',
      );
    this.#maxBytes = size;
    this.#evict();
    return undefined;
  }

  #literal(input: BlockReader, prefixBits: number): Field {
    const index = input.integer(prefixBits);
    const name = index === 0 ? input.text() : this.#at(index)[0];
    return [name, input.text()];
  }

  #at(index: number): Field {
    const field =
      index <= STATIC_TABLE.length
        ? STATIC_TABLE[index - 1]
        : this.#recent.at(STATIC_TABLE.length - index);
    if (index === 0 || field === undefined)
      throw new Http2Error('COMPRESSION_ERROR', 'an index of HPACK must name a field');
    return field;
  }

  #remember(field: Field): void {
    this.#recent.push(field);
    this.#bytes += weightOf(field);
    this.#evict();
  }

  #evict(): void {
    while (this.#bytes > this.#maxBytes) this.#bytes -= weightOf(this.#recent.shift()!);
  }
}

/** A change of the table's size to nothing. */
const NO_TABLE = Buffer.of(0x20);

/**
 * The writing half of HPACK for one connection: each field is a literal that is not to be remembered. The first block says that there is
 * no table: a client that allows less of it than HTTP/2 begins with waits for that and refuses a block without (RFC 7541 section 4.2;
 * nghttp2, so Envoy and Node.js, and Netty do).
 */
export class HpackEncoder {
  #begun = false;

  encode(fields: readonly Field[]): Buffer {
    const texts = fields.flatMap(([name, value]) => [
      Buffer.of(0),
      encodeText(name),
      encodeText(value),
    ]);
    const block = Buffer.concat(this.#begun ? texts : [NO_TABLE, ...texts]);
    this.#begun = true;
    return block;
  }
}

function encodeText(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  const prefix: number[] = [];
  if (bytes.length < 0x7f) {
    prefix.push(bytes.length);
  } else {
    prefix.push(0x7f);
    let rest = bytes.length - 0x7f;
    for (; rest >= 0x80; rest >>>= 7) prefix.push((rest & 0x7f) | 0x80);
    prefix.push(rest);
  }
  return Buffer.concat([Buffer.from(prefix), bytes]);
}

/** The size of a list of fields as RFC 9113 section 6.5.2 counts it. */
export function listBytes(fields: readonly Field[]): number {
  return fields.reduce((bytes, field) => bytes + weightOf(field), 0);
}

function weightOf([name, value]: Field): number {
  return name.length + value.length + FIELD_OVERHEAD;
}

/** Reads numbers and texts of HPACK (RFC 7541 section 5). */
class BlockReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(block: Uint8Array) {
    this.#bytes = Buffer.from(block.buffer, block.byteOffset, block.length);
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length;
  }

  peek(): number {
    const byte = this.#bytes[this.#at];
    if (byte === undefined)
      throw new Http2Error('COMPRESSION_ERROR', 'a header block must be whole');
    return byte;
  }

  integer(prefixBits: number): number {
    const full = (1 << prefixBits) - 1;
    let value = this.#next() & full;
    if (value < full) return value;
    for (let scale = 1; ; scale *= 128) {
      const byte = this.#next();
      value += (byte & 0x7f) * scale;
      if (value > MAX_INTEGER || scale > MAX_INTEGER)
        throw new Http2Error('COMPRESSION_ERROR', 'a number of HPACK must be in its bounds');
      if ((byte & 0x80) === 0) return value;
    }
  }

  text(): string {
    const isHuffman = (this.peek() & 0x80) !== 0;
    const length = this.integer(7);
    const end = this.#at + length;
    if (end > this.#bytes.length)
      throw new Http2Error('COMPRESSION_ERROR', 'a header block must be whole');
    const bytes = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return isHuffman ? huffmanDecode(bytes) : bytes.toString('latin1');
  }

  #next(): number {
    const byte = this.peek();
    this.#at += 1;
    return byte;
  }
}
