import { invalid } from './errors';

/** The identifier octets that X.509 and PKCS#10 use. */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  numericString: 0x12,
  printableString: 0x13,
  teletexString: 0x14,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  universalString: 0x1c,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const;

/** The identifier octet of `[number]`, 0 to 30: `primitive` where an IMPLICIT tag stands for a primitive type. */
export function contextTag(
  number: number,
  form: 'primitive' | 'constructed' = 'constructed',
): number {
  return (form === 'constructed' ? 0xa0 : 0x80) | number;
}

/** One element: `der` is all of it, `content` what stands inside. Both are views of the input, not copies, and made when asked for. */
export class DerElement {
  readonly #bytes: Uint8Array;

  constructor(
    bytes: Uint8Array,
    readonly tag: number,
    readonly startAt: number,
    readonly contentAt: number,
    readonly endAt: number,
  ) {
    this.#bytes = bytes;
  }

  get der(): Uint8Array {
    return this.#bytes.subarray(this.startAt, this.endAt);
  }

  get content(): Uint8Array {
    return this.#bytes.subarray(this.contentAt, this.endAt);
  }
}

/** A BIT STRING without its count of unused bits. */
export interface BitString {
  readonly unusedBits: number;
  readonly bytes: Uint8Array;
}

/** Enough for any certificate or request that a mesh has use for; the largest in practice hold 16384-bit keys in 4 KiB. */
export const MAX_DER_BYTES = 64 * 1024;

/**
 * Opens DER for reading as one element.
 *
 * @param field  What is being read, for errors, e.g. `certificate`.
 * @param read   Takes the reader; what it leaves unread is refused as trailing bytes.
 * @throws       AgentError ERR_PARSE.
 */
export function readDer<T>(
  der: Uint8Array,
  field: string,
  read: (reader: DerReader) => T,
  maxBytes = MAX_DER_BYTES,
): T {
  if (der.length === 0) throw invalid('ERR_PARSE', field, 'must not be empty');
  if (der.length > maxBytes)
    throw invalid('ERR_PARSE', field, `must not be longer than ${maxBytes} bytes`);
  return readAll(new DerReader(der, field), '', read);
}

function readAll<T>(reader: DerReader, name: string, read: (reader: DerReader) => T): T {
  const value = read(reader);
  if (!reader.atEnd) throw reader.refuse(name, 'must not have trailing bytes');
  return value;
}

/**
 * A strict reader over the elements inside one value. DER only: minimal, definite lengths and single-byte tags. It goes as deep as its
 * caller's code and no deeper, and looks at each octet once, so neither depth nor length of hostile input costs more than its size.
 *
 * Every method takes the `name` of what it expects; errors are ERR_PARSE with the field `<field> <name>`.
 *
 * @see X.690 sections 8 and 10.
 */
export class DerReader {
  readonly #bytes: Uint8Array;
  readonly #field: string;
  readonly #end: number;
  #at: number;

  /** Reads `bytes` from `at` up to `end`. */
  constructor(bytes: Uint8Array, field: string, at = 0, end = bytes.length) {
    this.#bytes = bytes;
    this.#field = field;
    this.#at = at;
    this.#end = end;
  }

  /** Where the next element begins in the bytes that this reads. */
  get at(): number {
    return this.#at;
  }

  get atEnd(): boolean {
    return this.#at >= this.#end;
  }

  /** The tag of the next element, or undefined at the end. */
  get nextTag(): number | undefined {
    return this.#at < this.#end ? this.#bytes[this.#at] : undefined;
  }

  refuse(name: string, rule: string) {
    return invalid('ERR_PARSE', name === '' ? this.#field : `${this.#field} ${name}`, rule);
  }

  /** The next element, whatever its tag. */
  any(name: string): DerElement {
    const start = this.#at;
    const tag = this.#octet(start, name);
    if ((tag & 0x1f) === 0x1f) throw this.refuse(name, 'must not use multi-byte tags');
    const [length, contentAt] = this.#length(start + 1, name);
    const end = contentAt + length;
    if (end > this.#end) throw this.refuse(name, 'is cut off');
    this.#at = end;
    return new DerElement(this.#bytes, tag, start, contentAt, end);
  }

  element(name: string, tag: number): DerElement {
    const next = this.nextTag;
    if (next === undefined) throw this.refuse(name, 'is missing');
    if (next !== tag) throw this.refuse(name, `must have tag 0x${hex2(tag)}, not 0x${hex2(next)}`);
    return this.any(name);
  }

  /** Enters a constructed element; what `read` leaves is refused. */
  enter<T>(name: string, tag: number, read: (inner: DerReader) => T): T {
    return this.inside(name, this.element(name, tag), read);
  }

  /** Enters an element of this reader; what `read` leaves is refused. */
  inside<T>(name: string, { contentAt, endAt }: DerElement, read: (inner: DerReader) => T): T {
    return readAll(new DerReader(this.#bytes, this.#field, contentAt, endAt), name, read);
  }

  sequence<T>(name: string, read: (inner: DerReader) => T): T {
    return this.enter(name, TAG.sequence, read);
  }

  /** Enters the element if it is next. */
  optional<T>(name: string, tag: number, read: (inner: DerReader) => T): T | undefined {
    return this.nextTag === tag ? this.enter(name, tag, read) : undefined;
  }

  /** Reads items up to the end, at most `max` of them. */
  list<T>(name: string, max: number, read: (reader: DerReader) => T): T[] {
    const items: T[] = [];
    while (!this.atEnd) {
      if (items.length === max) throw this.refuse(name, `must not hold more than ${max} items`);
      items.push(read(this));
    }
    return items;
  }

  /** Enters bytes found inside another value, such as DER in an OCTET STRING; what `read` leaves is refused. */
  within<T>(name: string, content: Uint8Array, read: (inner: DerReader) => T): T {
    return readAll(new DerReader(content, this.#field), name, read);
  }

  /** DER allows 00 and FF only. */
  boolean(name: string): boolean {
    const { content } = this.element(name, TAG.boolean);
    if (content.length !== 1 || (content[0] !== 0 && content[0] !== 0xff))
      throw this.refuse(name, 'must be a DER boolean');
    return content[0] === 0xff;
  }

  /** The two's complement octets of an INTEGER: at least one, minimal. */
  integer(name: string, tag: number = TAG.integer): Uint8Array {
    const { content } = this.element(name, tag);
    const [first, second] = content;
    if (first === undefined) throw this.refuse(name, 'must not be empty');
    if (
      second !== undefined &&
      ((first === 0 && second < 0x80) || (first === 0xff && second >= 0x80))
    ) {
      throw this.refuse(name, 'must be a minimal integer');
    }
    return content;
  }

  /** An INTEGER in 0 .. 2^31-1. */
  smallInteger(name: string, tag: number = TAG.integer): number {
    const content = this.integer(name, tag);
    if (content[0]! >= 0x80) throw this.refuse(name, 'must not be negative');
    if (content.length > 4) throw this.refuse(name, 'is too large');
    return content.reduce((value, octet) => value * 256 + octet, 0);
  }

  /** Dotted decimal. */
  oid(name: string): string {
    const { contentAt, endAt } = this.element(name, TAG.oid);
    const text = decodeOid(this.#bytes, contentAt, endAt);
    if (text === undefined) throw this.refuse(name, 'must be an object identifier');
    return text;
  }

  octetString(name: string, tag: number = TAG.octetString): Uint8Array {
    return this.element(name, tag).content;
  }

  /** Unused bits must be zero, as DER demands. */
  bitString(name: string, tag: number = TAG.bitString): BitString {
    const { content } = this.element(name, tag);
    const unusedBits = content[0];
    const bytes = content.subarray(1);
    if (unusedBits === undefined || unusedBits > 7 || (bytes.length === 0 && unusedBits > 0)) {
      throw this.refuse(name, 'must be a bit string');
    }
    if (bytes.length > 0 && (bytes.at(-1)! & ((1 << unusedBits) - 1)) !== 0)
      throw this.refuse(name, 'must have zeros as unused bits');
    return { unusedBits, bytes };
  }

  /** A BIT STRING of whole octets, as keys and signatures are. */
  octetBits(name: string): Uint8Array {
    const { unusedBits, bytes } = this.bitString(name);
    if (unusedBits !== 0) throw this.refuse(name, 'must be whole octets');
    return bytes;
  }

  /**
   * UTCTime (1950 to 2049) or GeneralizedTime (2050 to 9999): seconds present, no fraction, `Z`.
   *
   * @returns  Epoch milliseconds.
   * @see RFC 5280 section 4.1.2.5.
   */
  time(name: string): number {
    const tag = this.nextTag;
    const utc = tag === TAG.utcTime;
    if (!utc && tag !== TAG.generalizedTime)
      throw this.refuse(name, 'must be UTCTime or GeneralizedTime');
    const at = decodeTime(this.any(name).content, utc);
    if (at === undefined)
      throw this.refuse(
        name,
        `must be ${utc ? 'YYMMDDHHMMSSZ' : 'YYYYMMDDHHMMSSZ, 2050 or later'}`,
      );
    return at;
  }

  #octet(at: number, name: string): number {
    if (at >= this.#end) throw this.refuse(name, this.atEnd ? 'is missing' : 'is cut off');
    return this.#bytes[at]!;
  }

  #length(at: number, name: string): [length: number, contentAt: number] {
    const first = this.#octet(at, name);
    if (first < 0x80) return [first, at + 1];
    if (first === 0x80) throw this.refuse(name, 'must not have an indefinite length');
    const octets = first & 0x7f;
    if (octets > 4) throw this.refuse(name, 'is too long');
    let length = 0;
    for (let index = 1; index <= octets; index += 1)
      length = length * 256 + this.#octet(at + index, name);
    if (length < 0x80 || length < 256 ** (octets - 1))
      throw this.refuse(name, 'must have a minimal length');
    return [length, at + 1 + octets];
  }
}

const hex2 = (octet: number) => octet.toString(16).padStart(2, '0');

function decodeOid(bytes: Uint8Array, from: number, end: number): string | undefined {
  const arcs: number[] = [];
  let arc = 0;
  let fresh = true;
  for (let at = from; at < end; at += 1) {
    const octet = bytes[at]!;
    if (fresh && octet === 0x80) return undefined;
    arc = arc * 128 + (octet & 0x7f);
    // Arcs beyond 2^48 (UUID arcs) have no use here, and would not be exact.
    if (arc > 2 ** 48) return undefined;
    fresh = octet < 0x80;
    if (!fresh) continue;
    arcs.push(arc);
    arc = 0;
  }
  const [first] = arcs;
  if (first === undefined || !fresh) return undefined;
  const root = Math.min(Math.floor(first / 40), 2);
  return [root, first - root * 40, ...arcs.slice(1)].join('.');
}

function decodeTime(content: Uint8Array, utc: boolean): number | undefined {
  const digits = utc ? 12 : 14;
  if (content.length !== digits + 1 || content[digits] !== 0x5a) return undefined;
  for (let index = 0; index < digits; index += 1)
    if (content[index]! < 0x30 || content[index]! > 0x39) return undefined;
  const pair = (at: number) => (content[at]! - 0x30) * 10 + content[at + 1]! - 0x30;
  const year = utc ? pair(0) + (pair(0) < 50 ? 2000 : 1900) : pair(0) * 100 + pair(2);
  if (!utc && year < 2050) return undefined;
  const [month, day, hour, minute, second] = [0, 1, 2, 3, 4].map((index) =>
    pair(digits - 10 + index * 2),
  ) as [number, number, number, number, number];
  if (hour > 23 || minute > 59 || second > 59) return undefined;
  const date = new Date(Date.UTC(year, month - 1, day, hour, minute, second));
  // A day that the month has not, such as 31 April, would have rolled over.
  return date.getUTCMonth() === month - 1 && date.getUTCDate() === day ? date.getTime() : undefined;
}

/** Writes one element with a minimal length around its parts. */
export function derElement(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  let length = 0;
  for (const part of parts) length += part.length;
  const octets = lengthOctets(length);
  const out = Buffer.allocUnsafe(2 + octets + length);
  writeHead(out, tag, length, octets);
  let at = 2 + octets;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** As `derElement`, in pieces: what is tens of megabytes long is put together once, in steps. */
export function derElementParts(tag: number, ...parts: readonly Uint8Array[]): Uint8Array[] {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const octets = lengthOctets(length);
  const head = Buffer.allocUnsafe(2 + octets);
  writeHead(head, tag, length, octets);
  return [head, ...parts];
}

/** Of the long form; 0 for the short one. */
function lengthOctets(length: number): number {
  return length < 0x80 ? 0 : length < 0x100 ? 1 : length < 0x10000 ? 2 : length < 0x1000000 ? 3 : 4;
}

function writeHead(out: Buffer, tag: number, length: number, octets: number): void {
  out[0] = tag;
  out[1] = octets === 0 ? length : 0x80 | octets;
  if (octets > 0) out.writeUIntBE(length, 2, octets);
}

/** The digits of a whole number, most significant first, at least one. */
function base(value: number, radix: number): number[] {
  const digits = [value % radix];
  for (let rest = Math.floor(value / radix); rest > 0; rest = Math.floor(rest / radix))
    digits.unshift(rest % radix);
  return digits;
}

export function derSequence(...parts: readonly Uint8Array[]): Buffer {
  return derElement(TAG.sequence, ...parts);
}

/** A SET OF, sorted by encoding as DER demands. */
export function derSet(...parts: readonly Uint8Array[]): Buffer {
  return derElement(TAG.set, ...[...parts].sort(Buffer.compare));
}

/** A non-negative INTEGER from a small number or from big-endian octets. */
export function derInteger(value: number | Uint8Array): Buffer {
  let octets = typeof value === 'number' ? Uint8Array.from(base(value, 256)) : value;
  while (octets.length > 1 && octets[0] === 0) octets = octets.subarray(1);
  return octets.length === 0 || octets[0]! >= 0x80
    ? derElement(TAG.integer, Buffer.of(0), octets)
    : derElement(TAG.integer, octets);
}

export function derBoolean(value: boolean): Buffer {
  return derElement(TAG.boolean, Buffer.of(value ? 0xff : 0));
}

/** From dotted decimal. */
export function derOid(oid: string): Buffer {
  const known = writtenOids.get(oid);
  if (known !== undefined) return known;
  const [first, second, ...rest] = oid.split('.').map(Number);
  const written = derElement(
    TAG.oid,
    Buffer.from([first! * 40 + second!, ...rest].flatMap(arcOctets)),
  );
  if (writtenOids.size < MAX_WRITTEN_OIDS) writtenOids.set(oid, written);
  return written;
}

/** Every certificate holds the same few. */
const writtenOids = new Map<string, Buffer>();
const MAX_WRITTEN_OIDS = 256;

function arcOctets(arc: number): number[] {
  const digits = base(arc, 128);
  return digits.map((digit, index) => (index < digits.length - 1 ? 0x80 | digit : digit));
}

export function derOctetString(content: Uint8Array): Buffer {
  return derElement(TAG.octetString, content);
}

export function derBitString(bytes: Uint8Array, unusedBits = 0): Buffer {
  return derElement(TAG.bitString, Buffer.of(unusedBits), bytes);
}

/** UTCTime up to 2049, GeneralizedTime after, of epoch milliseconds cut to the second (RFC 5280 section 4.1.2.5). */
export function derTime(at: number): Buffer {
  const date = new Date(at);
  const year = date.getUTCFullYear();
  const rest = [
    date.getUTCMonth() + 1,
    date.getUTCDate(),
    date.getUTCHours(),
    date.getUTCMinutes(),
    date.getUTCSeconds(),
  ];
  const utc = year >= 1950 && year < 2050;
  const pairs = utc ? [year % 100, ...rest] : [Math.floor(year / 100), year % 100, ...rest];
  const digits = pairs.flatMap((pair) => [0x30 + Math.floor(pair / 10), 0x30 + (pair % 10)]);
  return derElement(utc ? TAG.utcTime : TAG.generalizedTime, Uint8Array.of(...digits, 0x5a));
}
