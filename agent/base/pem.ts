import { type AgentError, invalid } from './errors';
import { atOnce, type Steps } from './steps';

/** One block. `der` may be a key: whoever decodes one fills it with zeros when done. */
export interface PemBlock {
  /** As written, e.g. `CERTIFICATE`. */
  readonly label: string;
  readonly der: Buffer;
}

export interface PemLimits {
  /** Default 1 MiB. */
  readonly maxBytes?: number;
  /** Good and bad blocks together, default 1024. */
  readonly maxBlocks?: number;
}

const MAX_BYTES = 1024 * 1024;
const MAX_BLOCKS = 1024;
const MAX_LABEL = 64;
const BEGIN = Buffer.from('-----BEGIN');
const END = Buffer.from('-----END');
const DASHES = Buffer.from('-----');
const NEWLINE = 0x0a;
const COLON = 0x3a;
const EQUALS = 0x3d;
const BOM = Buffer.from([0xef, 0xbb, 0xbf]);

/**
 * Reads every block of a PEM text.
 *
 * Accepted: LF and CRLF, a UTF-8 byte order mark, no newline at the end, lines of any length, blanks at line ends, blank lines, and text
 * before, between and after blocks. Refused: a NUL anywhere, a boundary that shares its line with other text, mismatched labels, a BEGIN
 * inside a block, an END without its BEGIN, headers (such as `Proc-Type`, as in encrypted keys), base64 that is not canonical, and an
 * empty block. Takes bytes, not a string, because strings cannot be wiped; time is linear in the input.
 *
 * @param field  What is being read, for errors, e.g. `root-cert.pem`.
 * @returns      At least one block.
 * @throws       AgentError ERR_PARSE.
 * @see RFC 7468 sections 2 and 3.
 */
export function readPem(bytes: Uint8Array, field: string, limits: PemLimits = {}): PemBlock[] {
  return atOnce(readPemSteps(bytes, field, limits));
}

/** As `readPem`, for texts of megabytes. */
export function* readPemSteps(
  bytes: Uint8Array,
  field: string,
  limits: PemLimits = {},
): Steps<PemBlock[]> {
  const items = yield* scanSteps(bytes, field, limits);
  const blocks = items.filter((item) => 'label' in item);
  const refused = items.find((item) => !('label' in item));
  if (refused === undefined) return blocks;
  // Nobody gets the good blocks, and one of them may be a key.
  for (const { der } of blocks) der.fill(0);
  throw refused;
}

/**
 * As `readPem`, but gives the error of a bad block in its place and goes on with the next one, for bundles in which one bad root must not
 * take away the good ones.
 *
 * @throws  AgentError ERR_PARSE when nothing can be told apart: too large, a NUL, too many blocks, none at all.
 */
export function scanPem(
  bytes: Uint8Array,
  field: string,
  limits: PemLimits = {},
): (PemBlock | AgentError)[] {
  return atOnce(scanSteps(bytes, field, limits));
}

function* scanSteps(
  bytes: Uint8Array,
  field: string,
  limits: PemLimits,
): Steps<(PemBlock | AgentError)[]> {
  const { maxBytes = MAX_BYTES, maxBlocks = MAX_BLOCKS } = limits;
  if (bytes.length > maxBytes)
    throw invalid('ERR_PARSE', field, `must not be longer than ${maxBytes} bytes`);
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (text.includes(0)) throw invalid('ERR_PARSE', field, 'must not contain NUL');
  const items: (PemBlock | AgentError)[] = [];
  const refuse = (rule: string) =>
    invalid('ERR_PARSE', field, items.length === 0 ? rule : `block ${items.length + 1}: ${rule}`);
  let open: Boundary | undefined;
  for (const next of boundaries(text)) {
    if (items.length === maxBlocks)
      throw invalid('ERR_PARSE', field, `must not hold more than ${maxBlocks} blocks`);
    if (next.broken !== undefined) items.push(refuse(next.broken));
    else if (next.kind === 'end') items.push(yield* endBlock(text, open, next, refuse));
    else if (open !== undefined) items.push(refuse('must end before another block begins'));
    open = next.kind === 'begin' && next.broken === undefined ? next : undefined;
  }
  if (open !== undefined) items.push(refuse('must have an END line'));
  if (items.length === 0) throw invalid('ERR_PARSE', field, 'must hold at least one PEM block');
  return items;
}

interface Boundary {
  readonly kind: 'begin' | 'end';
  readonly label: string;
  /** Where its dashes begin, and where the next line does. */
  readonly at: number;
  readonly nextLineAt: number;
  /** The rule that it breaks. */
  readonly broken: string | undefined;
}

/** Every BEGIN and END in order. Each is searched for once, so that neither many of one kind nor none of the other make it slow. */
function* boundaries(text: Buffer): Generator<Boundary> {
  const end = text.length;
  const find = (mark: Buffer, from: number) => {
    const at = text.indexOf(mark, from);
    return at < 0 ? end : at;
  };
  let begin = find(BEGIN, 0);
  let close = find(END, 0);
  while (begin < end || close < end) {
    if (begin < close) {
      yield readBoundary(text, begin, 'begin');
      begin = find(BEGIN, begin + BEGIN.length);
    } else {
      yield readBoundary(text, close, 'end');
      close = find(END, close + END.length);
    }
  }
}

function readBoundary(text: Buffer, at: number, kind: 'begin' | 'end'): Boundary {
  const labelAt = at + (kind === 'begin' ? BEGIN : END).length;
  const rest = text.toString('latin1', labelAt, labelAt + MAX_LABEL + 1 + DASHES.length);
  const label = /^ ([A-Z0-9]+(?: [A-Z0-9]+)*)-----/.exec(rest)?.[1];
  if (label === undefined) {
    return {
      kind,
      label: '',
      at,
      nextLineAt: labelAt,
      broken: `must have labels of capitals, digits and single spaces, at most ${MAX_LABEL} long`,
    };
  }
  let nextLineAt = labelAt + 1 + label.length + DASHES.length;
  while (
    text[nextLineAt] !== NEWLINE &&
    SEXTETS[text[nextLineAt] ?? NEWLINE] === BLANK &&
    nextLineAt < text.length
  )
    nextLineAt += 1;
  const alone =
    (at === 0 || text[at - 1] === NEWLINE || isByteOrderMark(text, at)) &&
    (text[nextLineAt] ?? NEWLINE) === NEWLINE;
  return {
    kind,
    label,
    at,
    nextLineAt,
    broken: alone ? undefined : 'must have each BEGIN and END on a line of its own',
  };
}

function isByteOrderMark(text: Buffer, length: number): boolean {
  return length === BOM.length && text.subarray(0, length).equals(BOM);
}

function* endBlock(
  text: Buffer,
  begin: Boundary | undefined,
  end: Boundary,
  refuse: (rule: string) => AgentError,
): Steps<PemBlock | AgentError> {
  if (begin === undefined) return refuse('must have a BEGIN line');
  if (begin.label !== end.label)
    return refuse(`must end as it begins, not BEGIN ${begin.label} and END ${end.label}`);
  const body = text.subarray(begin.nextLineAt, end.at);
  if (body.includes(COLON))
    return refuse('must not have headers; encrypted keys are not supported');
  const der = yield* decodeBase64(body);
  if (der === undefined) return refuse('must be base64');
  if (der.length === 0) return refuse('must not be empty');
  return { label: begin.label, der };
}

const ALPHABET = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/');
const BLANK = 64;
const PADDING = 65;
const FOREIGN = 66;
const SEXTETS = new Uint8Array(256).fill(FOREIGN);
ALPHABET.forEach((octet, sextet) => {
  SEXTETS[octet] = sextet;
});
for (const octet of Buffer.from(' \t\r\n')) SEXTETS[octet] = BLANK;
SEXTETS[EQUALS] = PADDING;

/** Decodes without a string in between. Undefined where it is not canonical: foreign octets, wrong padding, stray bits at the end. */
function* decodeBase64(body: Uint8Array): Steps<Buffer | undefined> {
  const out = Buffer.alloc(Math.ceil((body.length * 3) / 4));
  const decoding: Decoding = { length: 0, bits: 0, sextets: 0, padding: 0 };
  for (let from = 0; from < body.length; from += STEP) {
    if (from > 0) yield;
    if (!decodePart(body.subarray(from, from + STEP), out, decoding)) return undefined;
  }
  const { length, sextets, padding } = decoding;
  if (sextets % 4 !== 0 || padding > 2) return undefined;
  // What padding stands for is zero; a set bit there would be a second spelling of the same bytes.
  for (let index = 1; index <= padding; index += 1) if (out[length - index] !== 0) return undefined;
  return out.subarray(0, length - padding);
}

/** Octets of text, or of content, in one step. */
const STEP = 48 * 1_024;

interface Decoding {
  /** Of what has been written. */
  length: number;
  bits: number;
  sextets: number;
  padding: number;
}

/** False at an octet that must not be there. By index and by octet: a CA reads a thousand requests a second, and the loop is most of that. */
function decodePart(part: Uint8Array, out: Buffer, decoding: Decoding): boolean {
  let { length, bits, sextets, padding } = decoding;
  for (let at = 0; at < part.length; at += 1) {
    const sextet = SEXTETS[part[at]!]!;
    if (sextet === BLANK) continue;
    if (sextet === FOREIGN || (padding > 0 && sextet !== PADDING)) return false;
    if (sextet === PADDING) padding += 1;
    bits = ((bits << 6) | (sextet === PADDING ? 0 : sextet)) & 0xffffff;
    sextets += 1;
    if (sextets % 4 !== 0) continue;
    out[length] = bits >> 16;
    out[length + 1] = bits >> 8;
    out[length + 2] = bits;
    length += 3;
  }
  Object.assign(decoding, { length, bits, sextets, padding });
  return true;
}

const LINE = 64;
const LINE_OCTETS = (LINE / 4) * 3;

/** Writes one block, LF line ends, 64 characters a line, newline at the end. No string is made of the content. */
export function writePem(label: string, der: Uint8Array): Buffer {
  return atOnce(writePemSteps(label, der));
}

/** As `writePem`, for content of megabytes. */
export function* writePemSteps(label: string, der: Uint8Array): Steps<Buffer> {
  const characters = Math.ceil(der.length / 3) * 4;
  const head = Buffer.from(`-----BEGIN ${label}-----\n`);
  const tail = Buffer.from(`-----END ${label}-----\n`);
  const out = Buffer.alloc(head.length + characters + Math.ceil(characters / LINE) + tail.length);
  let at = head.copy(out);
  for (let from = 0; from < der.length; from += LINE_OCTETS) {
    if (from > 0 && from % STEP === 0) yield;
    at = encodeLine(der, from, Math.min(from + LINE_OCTETS, der.length), out, at);
    out[at++] = NEWLINE;
  }
  tail.copy(out, at);
  return out;
}

function encodeLine(
  bytes: Uint8Array,
  start: number,
  end: number,
  out: Buffer,
  outAt: number,
): number {
  let at = outAt;
  for (let from = start; from < end; from += 3) {
    const present = end - from;
    const bits =
      (bytes[from]! << 16) |
      ((present > 1 ? bytes[from + 1]! : 0) << 8) |
      (present > 2 ? bytes[from + 2]! : 0);
    out[at] = ALPHABET[bits >> 18]!;
    out[at + 1] = ALPHABET[(bits >> 12) & 0x3f]!;
    out[at + 2] = present > 1 ? ALPHABET[(bits >> 6) & 0x3f]! : EQUALS;
    out[at + 3] = present > 2 ? ALPHABET[bits & 0x3f]! : EQUALS;
    at += 4;
  }
  return at;
}
