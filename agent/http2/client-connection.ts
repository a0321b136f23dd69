import type { Socket } from 'node:net';
import { FrameBudget } from './frame-budget';
import {
  assertFirst,
  assertLength,
  assertStream,
  contentOf,
  FLAG,
  FRAME,
  type Frame,
  FrameReader,
  frame,
  goawayFrame,
  headersFrames,
  INITIAL_WINDOW_BYTES,
  MAX_FRAME_BYTES,
  PREFACE,
  pingAnswer,
  readGoaway,
  readSettings,
  readWindow,
  resetFrame,
  SETTING,
  settingsFrame,
  widened,
} from './frames';
import { type HeaderBlock, HeaderBlocks, MAX_LIST_BYTES } from './header-blocks';
import { type Field, HpackEncoder } from './hpack';
import { ERROR_CODE, type ErrorName, Http2Error } from './http2-error';
import { ReceiveWindow } from './receive-window';
import { assertTrailers } from './request-headers';
import { parseResponseHeaders, type ResponseHeaders } from './response-headers';

/** What who has made a request is told. Nothing is told after `closed`. */
export interface ResponseListener {
  headers(headers: ResponseHeaders, endStream: boolean): void;
  /** Octets of the response; not to be kept. */
  data(chunk: Buffer): void;
  trailers(fields: readonly Field[]): void;
  /** The response is whole. */
  end(): void;
  /**
   * The stream is over.
   *
   * @param code        Of RFC 9113 section 7; NO_ERROR where it came to its end.
   * @param connection  Why its connection is lost, where it is over for that.
   */
  closed(code: number, connection: Error | undefined): void;
}

/** A request under way. */
export interface ClientStream {
  /** Gives it up. Its listener is told `closed`. */
  reset(code: ErrorName): void;
}

interface OpenStream extends ClientStream {
  readonly id: number;
  readonly listener: ResponseListener;
  body: Uint8Array;
  bodySent: boolean;
  sendWindow: number;
  readonly receiveWindow: ReceiveWindow;
  answered: boolean;
  ended: boolean;
}

const NO_PREFACE = Buffer.alloc(0);

/**
 * The client's side of one connection of HTTP/2 (RFC 9113), without push and priorities, for requests whose body is known when they are
 * made. The runtimes' own modules take four milliseconds of a start to load.
 *
 * Whatever a server sends, it holds: one header block, the part of one frame, and what listeners keep.
 */
export class ClientConnection {
  readonly #reader = new FrameReader(NO_PREFACE);
  readonly #blocks = new HeaderBlocks();
  readonly #encoder = new HpackEncoder();
  readonly #budget: FrameBudget;
  readonly #streams = new Map<number, OpenStream>();
  /** Requests that the server's limit keeps back, in order. */
  readonly #waiting = new Set<() => void>();
  #maxStreams = Number.POSITIVE_INFINITY;
  #sendWindow = INITIAL_WINDOW_BYTES;
  #streamWindow = INITIAL_WINDOW_BYTES;
  readonly #receiveWindow = new ReceiveWindow();
  #nextStream = 1;
  #isSettled = false;
  #isLeaving = false;
  #lost: Error | undefined;
  readonly #leaving: Promise<void>;
  #left: () => void = () => undefined;
  readonly #settled: Promise<void>;
  #settle: (lost?: Error) => void = () => undefined;

  /** @param now  Monotonic milliseconds. */
  constructor(
    private readonly socket: Socket,
    now: () => number,
  ) {
    this.#budget = new FrameBudget(now);
    this.#settled = new Promise((resolve, reject) => {
      this.#settle = (lost) => (lost ? reject(lost) : resolve());
    });
    void this.#settled.catch(() => undefined);
    this.#leaving = new Promise((resolve) => {
      this.#left = resolve;
    });
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('error', (error) => this.#lose(error));
    socket.on('close', () => this.#lose(new Error('Connection dropped')));
    const settings = { [SETTING.ENABLE_PUSH]: 0, [SETTING.MAX_HEADER_LIST_SIZE]: MAX_LIST_BYTES };
    socket.write(Buffer.concat([PREFACE, settingsFrame(settings)]));
  }

  /** Resolves when the server has begun to speak HTTP/2, rejects where the connection is lost before. */
  get settled(): Promise<void> {
    return this.#settled;
  }

  /** Resolves when it takes no more requests: either side has told the other to go, or the socket is gone. */
  get leaving(): Promise<void> {
    return this.#leaving;
  }

  /** Whether requests are under way. */
  get busy(): boolean {
    return this.#streams.size + this.#waiting.size > 0;
  }

  /** Sends a whole request, as soon as the server allows another. `fields` begin with the pseudo-headers. */
  request(fields: readonly Field[], body: Uint8Array, listener: ResponseListener): ClientStream {
    if (this.#isLeaving) return this.#refuse(listener);
    if (this.#streams.size < this.#maxStreams) return this.#open(fields, body, listener);
    let opened: ClientStream | undefined;
    const open = () => {
      opened = this.#isLeaving ? this.#refuse(listener) : this.#open(fields, body, listener);
    };
    this.#waiting.add(open);
    return {
      reset: (code) => {
        if (opened) return opened.reset(code);
        if (this.#waiting.delete(open)) listener.closed(ERROR_CODE[code], this.#lost);
      },
    };
  }

  /** Takes no more requests, and ends when those that are under way have ended. */
  leave(): void {
    this.#takeNoMore();
    this.#endIfLeft();
  }

  #takeNoMore(): void {
    this.#isLeaving = true;
    this.#left();
  }

  #refuse(listener: ResponseListener): ClientStream {
    queueMicrotask(() => listener.closed(ERROR_CODE.REFUSED_STREAM, this.#lost));
    return { reset: () => undefined };
  }

  #open(fields: readonly Field[], body: Uint8Array, listener: ResponseListener): ClientStream {
    const id = this.#nextStream;
    this.#nextStream += 2;
    const stream: OpenStream = {
      id,
      listener,
      body,
      bodySent: false,
      sendWindow: this.#streamWindow,
      receiveWindow: new ReceiveWindow(id),
      answered: false,
      ended: false,
      reset: (code) => {
        if (this.#streams.get(id) === stream) this.#reset(stream, code);
      },
    };
    this.#streams.set(id, stream);
    const head = headersFrames(id, this.#encoder.encode(fields), false);
    this.#write(Buffer.concat([head, ...this.#bodyFrames(stream)]));
    return stream;
  }

  /** As much of the body as the server takes now. */
  #bodyFrames(stream: OpenStream): Buffer[] {
    const frames: Buffer[] = [];
    while (!stream.bodySent) {
      const room = Math.min(MAX_FRAME_BYTES, stream.sendWindow, this.#sendWindow);
      if (room <= 0 && stream.body.length > 0) break;
      const part = stream.body.subarray(0, room);
      stream.body = stream.body.subarray(part.length);
      stream.sendWindow -= part.length;
      this.#sendWindow -= part.length;
      stream.bodySent = stream.body.length === 0;
      frames.push(frame(FRAME.DATA, stream.bodySent ? FLAG.END_STREAM : 0, stream.id, part));
      this.#budget.dataSent();
    }
    return frames;
  }

  #take(chunk: Buffer): void {
    if (this.#lost) return;
    try {
      for (const each of this.#reader.read(chunk)) {
        this.#takeFrame(each);
        if (this.#lost) return;
      }
    } catch (caught) {
      this.#abort(caught);
    }
  }

  #takeFrame(each: Frame): void {
    assertFirst(this.#isSettled || each.type === FRAME.SETTINGS);
    const isFree = each.type === FRAME.DATA && each.payload.length > 0;
    if (!isFree && !this.#budget.spend())
      throw new Http2Error('ENHANCE_YOUR_CALM', 'frames must not be more than calls need');
    this.#blocks.assertNext(each);
    try {
      this.#act(each);
    } catch (caught) {
      if (!(caught instanceof Http2Error && caught.stream !== undefined)) throw caught;
      const stream = this.#streams.get(caught.stream);
      if (stream) this.#reset(stream, caught.code);
    }
  }

  #act(each: Frame): void {
    switch (each.type) {
      case FRAME.DATA:
        this.#takeData(each);
        break;
      case FRAME.HEADERS:
        this.#assertAsked(each);
        this.#takeBlock(this.#blocks.take(each));
        break;
      case FRAME.CONTINUATION:
        this.#takeBlock(this.#blocks.take(each));
        break;
      case FRAME.PRIORITY:
        assertStream(each);
        assertLength(each, 5);
        break;
      case FRAME.RST_STREAM: {
        assertLength(each, 4);
        this.#assertAsked(each);
        const stream = this.#streams.get(each.stream);
        if (stream) this.#close(stream, each.payload.readUInt32BE(0));
        break;
      }
      case FRAME.SETTINGS:
        this.#takeSettings(each);
        break;
      case FRAME.PUSH_PROMISE:
        throw new Http2Error('PROTOCOL_ERROR', 'a server must not push');
      case FRAME.PING:
        this.#write(pingAnswer(each));
        break;
      case FRAME.GOAWAY:
        this.#takeGoaway(each);
        break;
      case FRAME.WINDOW_UPDATE:
        this.#takeWindow(each);
    }
  }

  #takeData(each: Frame): void {
    this.#assertAsked(each);
    const { length } = each.payload;
    this.#write(this.#receiveWindow.take(length));
    const content = contentOf(each);
    const stream = this.#streams.get(each.stream);
    // Of a stream that was given up the server may not know yet.
    if (!stream) return;
    if (!stream.answered || stream.ended)
      throw new Http2Error('PROTOCOL_ERROR', 'DATA must follow headers', stream.id);
    const end = (each.flags & FLAG.END_STREAM) !== 0;
    this.#write(stream.receiveWindow.take(length, end));
    if (content.length > 0) stream.listener.data(content);
    if (end) this.#end(stream);
  }

  #takeBlock(block: HeaderBlock | undefined): void {
    const stream = block && this.#streams.get(block.stream);
    if (!stream) return;
    const { fields, endStream } = block;
    if (fields === undefined) {
      const rule = `headers must not be larger than ${MAX_LIST_BYTES} bytes`;
      throw new Http2Error('ENHANCE_YOUR_CALM', rule, stream.id);
    }
    if (!stream.answered) {
      const headers = parseResponseHeaders(stream.id, fields);
      // 100 Continue and its like come before the answer (RFC 9113 section 8.1).
      const isInterim = headers.status < 200;
      if (isInterim && endStream)
        throw new Http2Error(
          'PROTOCOL_ERROR',
          'an interim response must not be the last',
          stream.id,
        );
      if (isInterim) return;
      stream.answered = true;
      stream.listener.headers(headers, endStream);
    } else {
      if (!endStream)
        throw new Http2Error('PROTOCOL_ERROR', 'trailers must end their response', stream.id);
      assertTrailers(stream.id, fields);
      stream.listener.trailers(fields);
    }
    if (endStream) this.#end(stream);
  }

  #takeSettings(each: Frame): void {
    const settings = readSettings(each, !this.#isSettled);
    if (settings === undefined) return;
    const window = settings.get(SETTING.INITIAL_WINDOW_SIZE) ?? this.#streamWindow;
    const by = window - this.#streamWindow;
    this.#streamWindow = window;
    for (const stream of this.#streams.values()) this.#widen(stream, by);
    this.#maxStreams = settings.get(SETTING.MAX_CONCURRENT_STREAMS) ?? this.#maxStreams;
    this.#write(frame(FRAME.SETTINGS, FLAG.ACK, 0, NO_PREFACE));
    this.#isSettled = true;
    this.#settle();
    this.#openWaiting();
  }

  #takeWindow(each: Frame): void {
    if (each.stream !== 0) this.#assertAsked(each);
    const bytes = readWindow(each);
    const stream = this.#streams.get(each.stream);
    if (each.stream !== 0) {
      if (stream) this.#widen(stream, bytes);
      return;
    }
    this.#sendWindow = widened(this.#sendWindow, bytes);
    for (const every of this.#streams.values()) this.#widen(every, 0);
  }

  /** The server takes so much more of a body. */
  #widen(stream: OpenStream, bytes: number): void {
    stream.sendWindow = widened(stream.sendWindow, bytes, stream.id);
    for (const each of this.#bodyFrames(stream)) this.#write(each);
  }

  /** Requests beyond the last that the server names were not looked at (RFC 9113 section 6.8). */
  #takeGoaway(each: Frame): void {
    const last = readGoaway(each);
    this.#takeNoMore();
    for (const stream of [...this.#streams.values()])
      if (stream.id > last) this.#close(stream, ERROR_CODE.REFUSED_STREAM);
    this.#openWaiting();
    this.#endIfLeft();
  }

  #openWaiting(): void {
    for (const open of this.#waiting) {
      if (this.#streams.size >= this.#maxStreams && !this.#isLeaving) return;
      this.#waiting.delete(open);
      open();
    }
  }

  /** The response is whole. What of the request the server did not wait for is not sent. */
  #end(stream: OpenStream): void {
    stream.ended = true;
    this.#budget.callEnded();
    stream.listener.end();
    if (!stream.bodySent) this.#write(resetFrame(stream.id, 'NO_ERROR'));
    this.#close(stream, ERROR_CODE.NO_ERROR);
  }

  #reset(stream: OpenStream, code: ErrorName): void {
    this.#write(resetFrame(stream.id, code));
    this.#close(stream, ERROR_CODE[code]);
  }

  #close(stream: OpenStream, code: number): void {
    if (!this.#streams.delete(stream.id)) return;
    stream.listener.closed(code, this.#lost);
    this.#openWaiting();
    this.#endIfLeft();
  }

  /** Fault of the server's that ends its connection, or ours. */
  #abort(caught: unknown): void {
    const code = caught instanceof Http2Error ? caught.code : 'INTERNAL_ERROR';
    this.#write(goawayFrame(0, code));
    this.#lose(caught instanceof Error ? caught : new Error(String(caught)));
  }

  #lose(cause: Error): void {
    if (this.#lost) return;
    this.#lost = cause;
    this.#takeNoMore();
    this.#settle(cause);
    this.#blocks.drop();
    for (const stream of [...this.#streams.values()]) this.#close(stream, ERROR_CODE.CANCEL);
    this.#openWaiting();
    this.socket.destroySoon();
  }

  #endIfLeft(): void {
    if (!this.#isLeaving || this.#lost || this.busy) return;
    this.#write(goawayFrame(0, 'NO_ERROR'));
    this.socket.end();
  }

  #assertAsked(each: Frame): void {
    if (each.stream % 2 === 0 || each.stream >= this.#nextStream)
      throw new Http2Error('PROTOCOL_ERROR', 'a frame must be of a stream that was opened');
  }

  #write(bytes: Buffer | undefined): void {
    if (bytes && !this.#lost) this.socket.write(bytes);
  }
}
