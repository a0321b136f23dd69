import { ERROR_CODE, type ErrorName, Http2Error } from './http2-error';

/** The types of RFC 9113 section 6. */
export const FRAME = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PUSH_PROMISE: 5,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9,
} as const;

export const FLAG = {
  ACK: 0x1,
  END_STREAM: 0x1,
  END_HEADERS: 0x4,
  PADDED: 0x8,
  PRIORITY: 0x20,
} as const;

export const SETTING = {
  ENABLE_PUSH: 2,
  MAX_CONCURRENT_STREAMS: 3,
  INITIAL_WINDOW_SIZE: 4,
  MAX_FRAME_SIZE: 5,
  MAX_HEADER_LIST_SIZE: 6,
} as const;

/** The least that HTTP/2 allows, and what both sides begin with; ours stays. */
export const MAX_FRAME_BYTES = 16_384;
/** What both sides begin with; ours stays. */
export const INITIAL_WINDOW_BYTES = 65_535;
export const MAX_WINDOW_BYTES = 2 ** 31 - 1;

/** One frame as it came. The payload is part of what was read: it is not to be kept. */
export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

/** With which a client begins. */
export const PREFACE: Buffer = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const HEAD_BYTES = 9;
export const PING_BYTES: number = 8;

/** Takes the other side's octets apart: those with which it begins, then frames. */
export class FrameReader {
  #rest: Buffer | undefined;
  #prefaceSeen = 0;

  /** @param preface  With which the other side begins: a client with `PREFACE`, a server with none. */
  constructor(private readonly preface: Buffer) {}

  /** Whether the other side has begun to speak HTTP/2. */
  get begun(): boolean {
    return this.#prefaceSeen === this.preface.length;
  }

  /**
   * The frames that are whole now.
   *
   * @throws Http2Error PROTOCOL_ERROR where it is no HTTP/2, FRAME_SIZE_ERROR.
   */
  *read(chunk: Buffer): Generator<Frame> {
    let bytes = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#rest = undefined;
    if (!this.begun) {
      const seen = this.#prefaceSeen;
      const part = bytes.subarray(0, this.preface.length - seen);
      if (!part.equals(this.preface.subarray(seen, seen + part.length))) {
        throw new Http2Error('PROTOCOL_ERROR', 'the first octets must be those of HTTP/2');
      }
      this.#prefaceSeen += part.length;
      bytes = bytes.subarray(part.length);
    }
    let at = 0;
    while (bytes.length - at >= HEAD_BYTES) {
      const length = bytes.readUIntBE(at, 3);
      if (length > MAX_FRAME_BYTES)
        throw new Http2Error(
          'FRAME_SIZE_ERROR',
          `a frame must not be longer than ${MAX_FRAME_BYTES} bytes`,
        );
      const end = at + HEAD_BYTES + length;
      if (end > bytes.length) break;
      const [type, flags, stream] = [
        bytes[at + 3]!,
        bytes[at + 4]!,
        bytes.readUInt32BE(at + 5) & 0x7fffffff,
      ];
      const payload = bytes.subarray(at + HEAD_BYTES, end);
      at = end;
      yield { type, flags, stream, payload };
    }
    // A copy: what was read would stay as a whole for the sake of a few octets.
    if (at < bytes.length) this.#rest = Buffer.from(bytes.subarray(at));
  }
}

/** DATA or HEADERS without its padding, and HEADERS without its priority (RFC 9113 sections 6.1 and 6.2). */
export function contentOf({ type, flags, payload }: Frame): Buffer {
  const padded = (flags & FLAG.PADDED) !== 0;
  const start =
    (padded ? 1 : 0) + (type === FRAME.HEADERS && (flags & FLAG.PRIORITY) !== 0 ? 5 : 0);
  const end = payload.length - (padded ? (payload[0] ?? 0) : 0);
  if (start > end)
    throw new Http2Error('PROTOCOL_ERROR', 'padding must not be longer than its frame');
  return payload.subarray(start, end);
}

/** The head of a frame; so many octets of payload have to follow. */
export function frameHead(type: number, flags: number, stream: number, length: number): Buffer {
  const head = Buffer.allocUnsafe(HEAD_BYTES);
  head.writeUIntBE(length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return head;
}

export function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  return Buffer.concat([frameHead(type, flags, stream, payload.length), payload]);
}

/** HEADERS with CONTINUATION as far as the block needs it. */
export function headersFrames(stream: number, block: Buffer, endStream: boolean): Buffer {
  const frames: Buffer[] = [];
  for (let at = 0; at === 0 || at < block.length; at += MAX_FRAME_BYTES) {
    const part = block.subarray(at, at + MAX_FRAME_BYTES);
    const last = at + MAX_FRAME_BYTES >= block.length ? FLAG.END_HEADERS : 0;
    const flags = last | (at === 0 && endStream ? FLAG.END_STREAM : 0);
    frames.push(frame(at === 0 ? FRAME.HEADERS : FRAME.CONTINUATION, flags, stream, part));
  }
  return Buffer.concat(frames);
}

/** @throws Http2Error: with SETTINGS of its own the other side begins (RFC 9113 section 3.4). */
export function assertFirst(isSettings: boolean): void {
  if (!isSettings) throw new Http2Error('PROTOCOL_ERROR', 'the first frame must be SETTINGS');
}

/**
 * What a SETTINGS frame says, the last of each; undefined for the other side's acknowledgement of ours.
 *
 * @param isFirst  The other side has sent none yet: an acknowledgement is out of turn.
 * @throws         Http2Error, also where a value is out of its bounds (RFC 9113 section 6.5.2).
 */
export function readSettings(
  each: Frame,
  isFirst: boolean,
): ReadonlyMap<number, number> | undefined {
  assertConnection(each);
  const { payload, flags } = each;
  if ((flags & FLAG.ACK) !== 0) {
    assertLength(each, 0);
    assertFirst(!isFirst);
    return undefined;
  }
  if (payload.length % 6 !== 0) throw new Http2Error('FRAME_SIZE_ERROR', 'SETTINGS must be whole');
  const settings = new Map<number, number>();
  for (let at = 0; at < payload.length; at += 6) {
    const [id, value] = [payload.readUInt16BE(at), payload.readUInt32BE(at + 2)];
    if (id === SETTING.INITIAL_WINDOW_SIZE && value > MAX_WINDOW_BYTES)
      throw new Http2Error('FLOW_CONTROL_ERROR', 'a window must not be that large');
    if (id === SETTING.ENABLE_PUSH && value > 1)
      throw new Http2Error('PROTOCOL_ERROR', 'ENABLE_PUSH must be 0 or 1');
    if (id === SETTING.MAX_FRAME_SIZE && (value < MAX_FRAME_BYTES || value >= 2 ** 24))
      throw new Http2Error('PROTOCOL_ERROR', 'MAX_FRAME_SIZE must be in its bounds');
    settings.set(id, value);
  }
  return settings;
}

/** Octets that a WINDOW_UPDATE adds. @throws Http2Error for the stream or the connection where they are none. */
export function readWindow(each: Frame): number {
  assertLength(each, 4);
  const bytes = each.payload.readUInt32BE(0) & 0x7fffffff;
  if (bytes > 0) return bytes;
  const stream = each.stream === 0 ? undefined : each.stream;
  throw new Http2Error('PROTOCOL_ERROR', 'WINDOW_UPDATE must not be zero', stream);
}

/**
 * A window to send in, so much wider or, by a change of settings, narrower.
 *
 * @throws Http2Error FLOW_CONTROL_ERROR for the stream, or the connection (RFC 9113 section 6.9.1).
 */
export function widened(window: number, bytes: number, stream?: number): number {
  if (window + bytes > MAX_WINDOW_BYTES)
    throw new Http2Error('FLOW_CONTROL_ERROR', 'a window must not be that large', stream);
  return window + bytes;
}

/** The last stream that is served, by the GOAWAY of the other side. */
export function readGoaway(each: Frame): number {
  assertConnection(each);
  if (each.payload.length < 8) throw new Http2Error('FRAME_SIZE_ERROR', 'GOAWAY must be whole');
  return each.payload.readUInt32BE(0) & 0x7fffffff;
}

/** The answer to a PING; undefined where it is the answer to one of ours. */
export function pingAnswer(each: Frame): Buffer | undefined {
  assertConnection(each);
  assertLength(each, PING_BYTES);
  return (each.flags & FLAG.ACK) === 0 ? frame(FRAME.PING, FLAG.ACK, 0, each.payload) : undefined;
}

/** @throws Http2Error where a frame is of the connection that has to be of a stream. */
export function assertStream({ stream }: Frame): void {
  if (stream === 0) throw new Http2Error('PROTOCOL_ERROR', 'a frame of a stream must name it');
}

/** @throws Http2Error where a frame is of a stream that has to be of the connection. */
export function assertConnection({ stream }: Frame): void {
  if (stream !== 0)
    throw new Http2Error('PROTOCOL_ERROR', 'a frame of the connection must not name a stream');
}

/** @throws Http2Error FRAME_SIZE_ERROR. */
export function assertLength({ payload }: Frame, bytes: number): void {
  if (payload.length !== bytes)
    throw new Http2Error('FRAME_SIZE_ERROR', 'a frame must be as long as its type is');
}

export function settingsFrame(settings: Readonly<Record<number, number>>): Buffer {
  const payload = Object.entries(settings).map(([id, value]) => {
    const entry = Buffer.allocUnsafe(6);
    entry.writeUInt16BE(Number(id), 0);
    entry.writeUInt32BE(value, 2);
    return entry;
  });
  return frame(FRAME.SETTINGS, 0, 0, Buffer.concat(payload));
}

export function resetFrame(stream: number, code: ErrorName): Buffer {
  return frame(FRAME.RST_STREAM, 0, stream, uint32(ERROR_CODE[code]));
}

export function windowFrame(stream: number, bytes: number): Buffer {
  return frame(FRAME.WINDOW_UPDATE, 0, stream, uint32(bytes));
}

export function goawayFrame(lastStream: number, code: ErrorName, words = ''): Buffer {
  return frame(
    FRAME.GOAWAY,
    0,
    0,
    Buffer.concat([uint32(lastStream), uint32(ERROR_CODE[code]), Buffer.from(words)]),
  );
}

function uint32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(value, 0);
  return bytes;
}
