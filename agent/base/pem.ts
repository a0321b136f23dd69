import { type AgentError, invalid } from './errors';

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
const BEGIN = Buffer.from('-----BEGIN ');
const END = Buffer.from('-----END ');
const DASHES = Buffer.from('-----');
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
  return scanPem(bytes, field, limits).map((item) => {
    if ('label' in item) return item;
    throw item;
  });
}

/**
 * As `readPem`, but gives the error of a bad block in its place and goes on with the next one, for bundles in which one bad root must not
 * take away the good ones.
 *
 * @throws  AgentError ERR_PARSE when nothing can be told apart: too large, a NUL, too many blocks, none at all.
 */
export function scanPem(bytes: Uint8Array, field: string, limits: PemLimits = {}): (PemBlock | AgentError)[] {
  const { maxBytes = MAX_BYTES, maxBlocks = MAX_BLOCKS } = limits;
  if (bytes.length > maxBytes) throw invalid('ERR_PARSE', field, `must not be longer than ${maxBytes} bytes`);
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (text.includes(0)) throw invalid('ERR_PARSE', field, 'must not contain NUL');
  const items: (PemBlock | AgentError)[] = [];
  const refuse = (rule: string) => invalid('ERR_PARSE', field, items.length === 0 ? rule : `block ${items.length + 1}: ${rule}`);
  let open: { readonly label: string; readonly bodyAt: number } | undefined;
  let lineAt = text.subarray(0, BOM.length).equals(BOM) ? BOM.length : 0;
  while (lineAt < text.length) {
    const newline = text.indexOf(0x0a, lineAt);
    const lineEnd = newline < 0 ? text.length : newline;
    const line = text.subarray(lineAt, lineEnd);
    const found = open === undefined || line.includes(DASHES) ? boundary(line) : undefined;
    if (found !== undefined) {
      if (items.length === maxBlocks) throw invalid('ERR_PARSE', field, `must not hold more than ${maxBlocks} blocks`);
      const opened = found.kind === 'begin' ? { label: found.label, bodyAt: Math.min(lineEnd + 1, text.length) } : undefined;
      if (found.kind === 'broken') items.push(refuse(found.rule));
      else if (found.kind === 'begin' && open !== undefined) items.push(refuse('must end before another block begins'));
      else if (found.kind === 'end') items.push(endBlock(text, open, found.label, lineAt, refuse));
      open = opened;
    }
    lineAt = lineEnd + 1;
  }
  if (open !== undefined) items.push(refuse('must have an END line'));
  if (items.length === 0) throw invalid('ERR_PARSE', field, 'must hold at least one PEM block');
  return items;
}

type Boundary = { readonly kind: 'begin' | 'end'; readonly label: string } | { readonly kind: 'broken'; readonly rule: string };

/** What a line has to say about blocks: undefined where it is plain text or base64. */
function boundary(line: Buffer): Boundary | undefined {
  const at = Math.min(...[line.indexOf(BEGIN), line.indexOf(END)].map((index) => (index < 0 ? Infinity : index)));
  if (at === Infinity) return undefined;
  const kind = line.subarray(at, at + END.length).equals(END) ? 'end' : 'begin';
  const labelAt = at + (kind === 'end' ? END.length : BEGIN.length);
  const labelEnd = line.indexOf(DASHES, labelAt);
  if (at > 0 || labelEnd < 0 || !isBlank(line.subarray(labelEnd + DASHES.length))) {
    return { kind: 'broken', rule: 'must have each BEGIN and END on a line of its own, closed by five dashes' };
  }
  const label = line.toString('latin1', labelAt, Math.min(labelEnd, labelAt + MAX_LABEL + 1));
  if (label.length > MAX_LABEL || !/^[A-Z0-9]+(?: [A-Z0-9]+)*$/.test(label)) {
    return { kind: 'broken', rule: `must have a label of capitals, digits and single spaces, at most ${MAX_LABEL} long` };
  }
  return { kind, label };
}

function endBlock(
  text: Buffer,
  open: { readonly label: string; readonly bodyAt: number } | undefined,
  label: string,
  bodyEnd: number,
  refuse: (rule: string) => AgentError,
): PemBlock | AgentError {
  if (open === undefined) return refuse('must have a BEGIN line');
  if (open.label !== label) return refuse(`must end as it begins, not BEGIN ${open.label} and END ${label}`);
  const body = text.subarray(open.bodyAt, bodyEnd);
  if (body.includes(0x3a)) return refuse('must not have headers; encrypted keys are not supported');
  const der = decodeBase64(body);
  if (der === undefined) return refuse('must be base64');
  if (der.length === 0) return refuse('must not be empty');
  return { label, der };
}

function isBlank(bytes: Uint8Array): boolean {
  return bytes.every((octet) => SEXTETS[octet] === BLANK);
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
SEXTETS[0x3d] = PADDING;

/** Decodes without a string in between. Undefined where it is not canonical: foreign octets, wrong padding, stray bits at the end. */
function decodeBase64(body: Uint8Array): Buffer | undefined {
  const out = Buffer.alloc(Math.ceil((body.length * 3) / 4));
  let length = 0;
  let bits = 0;
  let sextets = 0;
  let padding = 0;
  for (const octet of body) {
    const sextet = SEXTETS[octet]!;
    if (sextet === BLANK) continue;
    if (sextet === FOREIGN || (padding > 0 && sextet !== PADDING)) return undefined;
    if (sextet === PADDING) padding += 1;
    bits = ((bits << 6) | (sextet === PADDING ? 0 : sextet)) & 0xffffff;
    sextets += 1;
    if (sextets % 4 !== 0) continue;
    length = out.writeUIntBE(bits, length, 3);
  }
  if (sextets % 4 !== 0 || padding > 2) return undefined;
  // What padding stands for is zero; a set bit there would be a second spelling of the same bytes.
  for (let index = 1; index <= padding; index += 1) if (out[length - index] !== 0) return undefined;
  return out.subarray(0, length - padding);
}

const LINE = 64;

/** Writes one block, LF line ends, 64 characters a line, newline at the end. No string is made of the content. */
export function writePem(label: string, der: Uint8Array): Buffer {
  const characters = Math.ceil(der.length / 3) * 4;
  const head = Buffer.from(`-----BEGIN ${label}-----\n`);
  const tail = Buffer.from(`-----END ${label}-----\n`);
  const out = Buffer.alloc(head.length + characters + Math.ceil(characters / LINE) + tail.length);
  let at = head.copy(out);
  for (let from = 0; from < der.length; from += (LINE / 4) * 3) {
    at = encodeLine(der.subarray(from, from + (LINE / 4) * 3), out, at);
    out[at++] = 0x0a;
  }
  tail.copy(out, at);
  return out;
}

function encodeLine(bytes: Uint8Array, out: Buffer, start: number): number {
  let at = start;
  for (let from = 0; from < bytes.length; from += 3) {
    const [first = 0, second = 0, third = 0] = bytes.subarray(from, from + 3);
    const bits = (first << 16) | (second << 8) | third;
    const present = Math.min(bytes.length - from, 3);
    for (let index = 0; index < 4; index += 1) {
      out[at++] = index <= present ? ALPHABET[(bits >> (18 - 6 * index)) & 0x3f]! : 0x3d;
    }
  }
  return at;
}
