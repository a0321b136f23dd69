import type { Socket } from 'node:net';
import { LoopShare } from '../base/loop-share';
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
  frameHead,
  goawayFrame,
  headersFrames,
  INITIAL_WINDOW_BYTES,
  MAX_FRAME_BYTES,
  PING_BYTES,
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
import { type ErrorName, Http2Error } from './http2-error';
import { ReceiveWindow } from './receive-window';
import { assertTrailers, parseRequestHeaders, type RequestHeaders } from './request-headers';
import { ServerStream, type StreamOwner } from './server-stream';

export interface ConnectionLimits {
  /** Open streams; told to the client. What it opens beyond them is reset. */
  readonly streams: number;
  /** All fields of one request as RFC 9113 section 6.5.2 counts them; told to the client. The host refuses what has more. */
  readonly headerBytes: number;
}

/** Whom a connection serves and tells. */
export interface ConnectionHost {
  /** A request came. Set its `listener` now or refuse it. */
  opened(stream: ServerStream): void;
  /** The client broke a rule or a bound: its stream was reset, or without one its connection was closed. */
  refused(violation: Http2Error): void;
  /** A fault of ours while a stream was served; it has been reset. */
  failed(cause: unknown): void;
  /** Monotonic milliseconds. */
  now(): number;
}

/** Given to the socket at a time; more is made when it has taken that. */
const BATCH_BYTES = 64 * 1024;
/** Of all connections of the process, milliseconds a turn. */
const TURN = new LoopShare(10);

/**
 * The server's side of one connection of HTTP/2 (RFC 9113), without push and priorities.
 *
 * Ours rather than the runtime's, on sockets that workloads reach: Node.js aborts the process where a client that reads nothing resets
 * streams and hangs up (`Http2Session ... current_nghttp2_memory_ == 0`), the runtimes reset an `:authority` that is the path of a socket
 * and tell nobody, and a flood is to be counted before anything is done for it.
 *
 * Whatever a client sends, it holds: at most one header block and the part of one frame, the streams and messages that its host allows,
 * and one batch of output. While the client does not read that, nothing more is read from it.
 */
export class ServerConnection implements StreamOwner {
  readonly #socket: Socket;
  readonly #limits: ConnectionLimits;
  readonly #host: ConnectionHost;
  readonly #budget: FrameBudget;
  readonly #reader = new FrameReader(PREFACE);
  readonly #chunks: Buffer[] = [];
  #frames: Iterator<Frame> | undefined;
  /** What has come waits for a turn of the event loop that has time for it. */
  #waiting = false;
  #paused = false;
  readonly #blocks = new HeaderBlocks();
  readonly #encoder = new HpackEncoder();
  readonly #streams = new Map<number, ServerStream>();
  /** Streams that may have something to send, the one whose turn it is first. */
  readonly #ready = new Set<ServerStream>();
  /** Streams that were ended from here before their request was: what is on its way of them is no fault. Newest last. */
  readonly #cutShort = new Set<number>();
  #settled = false;
  #lastStream = 0;
  /** The last stream that is served since one side told the other to go. */
  #goodbye: number | undefined;
  #ended = false;
  #sendWindow = INITIAL_WINDOW_BYTES;
  #streamWindow = INITIAL_WINDOW_BYTES;
  readonly #receiveWindow = new ReceiveWindow();
  #out: Uint8Array[] = [];
  #outBytes = 0;
  #written: (() => void)[] = [];
  #flushing = false;
  #blocked = false;
  #heard = true;
  #pinged = false;

  constructor(socket: Socket, limits: ConnectionLimits, host: ConnectionHost) {
    this.#socket = socket;
    this.#limits = limits;
    this.#host = host;
    this.#budget = new FrameBudget(() => host.now());
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('drain', () => this.#drained());
    socket.on('close', () => this.#close());
    this.#send(
      settingsFrame({
        [SETTING.MAX_CONCURRENT_STREAMS]: limits.streams,
        [SETTING.MAX_HEADER_LIST_SIZE]: limits.headerBytes,
      }),
    );
  }

  /** Whether the client has begun to speak HTTP/2. */
  get begun(): boolean {
    return this.#reader.begun;
  }

  /** Whether what was written waits for the client to read. */
  get blocked(): boolean {
    return this.#blocked;
  }

  /** Whether it was told to go, by either side, and has no streams any more. */
  get left(): boolean {
    return this.#goodbye !== undefined && this.#streams.size === 0;
  }

  /** Tells the client to go, and ends when its streams have ended. */
  leave(): void {
    if (this.#goodbye !== undefined || this.#ended) return;
    this.#goodbye = this.#lastStream;
    this.#send(goawayFrame(this.#goodbye, 'NO_ERROR'));
    this.#endIfLeft();
  }

  /** Asks for a sign of life. False where the last one was asked for and nothing came since. */
  probe(): boolean {
    if (this.#pinged && !this.#heard) return false;
    this.#pinged = true;
    this.#heard = false;
    this.#send(frame(FRAME.PING, 0, 0, Buffer.alloc(PING_BYTES)));
    return true;
  }

  headers(stream: ServerStream, fields: readonly Field[], endStream: boolean): void {
    this.#send(headersFrames(stream.id, this.#encoder.encode(fields), endStream));
    if (endStream) this.#finish(stream);
  }

  wake(stream: ServerStream): void {
    this.#ready.add(stream);
    this.#flushSoon();
  }

  reset(stream: ServerStream, code: ErrorName): void {
    this.#send(resetFrame(stream.id, code));
    this.#forget(stream);
  }

  #take(chunk: Buffer): void {
    if (this.#ended) return;
    this.#heard = true;
    this.#chunks.push(chunk);
    if (!this.#waiting) this.#work();
  }

  /** Reads what has come, as far as the turn of the event loop has time for it. */
  readonly #work = () => {
    this.#waiting = false;
    try {
      while (!this.#ended && !this.#waiting) {
        const next = this.#nextFrame();
        if (next === undefined) break;
        this.#takeFrame(next);
        this.#waiting = !TURN.hasTime();
      }
    } catch (caught) {
      this.#abort(caught);
    }
    if (this.#ended) return;
    if (this.#waiting) TURN.wait(this.#work);
    this.#flush();
    this.#readOrNot();
  };

  #nextFrame(): Frame | undefined {
    for (;;) {
      const next = this.#frames?.next();
      if (next?.done === false) return next.value;
      const chunk = this.#chunks.shift();
      this.#frames = chunk && this.#reader.read(chunk);
      if (chunk === undefined) return undefined;
    }
  }

  /** Nothing is read while what came before waits for its turn, or what was written for its client. */
  #readOrNot(): void {
    const paused = this.#blocked || this.#waiting;
    if (paused === this.#paused) return;
    this.#paused = paused;
    if (paused) this.#socket.pause();
    else this.#socket.resume();
  }

  #takeFrame(each: Frame): void {
    assertFirst(this.#settled || each.type === FRAME.SETTINGS);
    if (each.type !== FRAME.DATA) this.#spend();
    this.#blocks.assertNext(each);
    try {
      this.#act(each);
    } catch (caught) {
      if (!(caught instanceof Http2Error && caught.stream !== undefined)) throw caught;
      this.#refuse(caught, caught.stream);
    }
  }

  #spend(): void {
    if (!this.#budget.spend())
      throw new Http2Error('ENHANCE_YOUR_CALM', 'frames must not be more than calls need');
  }

  #act(each: Frame): void {
    switch (each.type) {
      case FRAME.DATA:
        this.#takeData(each);
        break;
      case FRAME.HEADERS:
        this.#takeHeaders(each);
        break;
      case FRAME.CONTINUATION:
        this.#takeBlock(this.#blocks.take(each));
        break;
      case FRAME.PRIORITY:
        assertStream(each);
        assertLength(each, 5);
        break;
      case FRAME.RST_STREAM:
        this.#takeReset(each);
        break;
      case FRAME.SETTINGS:
        this.#takeSettings(each);
        break;
      case FRAME.PUSH_PROMISE:
        throw new Http2Error('PROTOCOL_ERROR', 'a client must not push');
      case FRAME.PING:
        this.#send(pingAnswer(each));
        break;
      case FRAME.GOAWAY:
        readGoaway(each);
        this.leave();
        break;
      case FRAME.WINDOW_UPDATE:
        this.#takeWindow(each);
    }
  }

  #takeReset(each: Frame): void {
    assertLength(each, 4);
    this.#assertOpened(each);
    const stream = this.#streams.get(each.stream);
    if (!stream) return;
    stream.requestEnded = true;
    this.#lose(stream);
  }

  #takeData(each: Frame): void {
    this.#assertOpened(each);
    const { length } = each.payload;
    this.#send(this.#receiveWindow.take(length));
    const content = contentOf(each);
    if (content.length === 0) this.#spend();
    const stream = this.#streams.get(each.stream);
    if (!stream) {
      if (this.#isOnItsWay(each.stream)) return;
      throw new Http2Error('STREAM_CLOSED', 'a stream must not go on after its end');
    }
    if (stream.requestEnded)
      throw new Http2Error('STREAM_CLOSED', 'a request must not go on after its end', stream.id);
    const end = (each.flags & FLAG.END_STREAM) !== 0;
    this.#send(stream.receiveWindow.take(length, end));
    stream.bodyBytes += content.length;
    assertBody(stream, end);
    if (content.length > 0) this.#serve(stream, () => stream.listener?.data(content));
    if (end) this.#endRequest(stream);
  }

  #takeHeaders(each: Frame): void {
    assertStream(each);
    if (each.stream % 2 === 0)
      throw new Http2Error('PROTOCOL_ERROR', 'a client must open odd streams');
    this.#takeBlock(this.#blocks.take(each));
  }

  #takeBlock(block: HeaderBlock | undefined): void {
    if (!block) return;
    if (block.stream > this.#lastStream) this.#open(block);
    else this.#takeTrailers(block);
  }

  #open({ stream: id, endStream, fields }: HeaderBlock): void {
    this.#lastStream = id;
    // Its client has been told that nothing comes of it.
    if (this.#goodbye !== undefined) return;
    if (fields === undefined) {
      throw new Http2Error(
        'ENHANCE_YOUR_CALM',
        `headers must not be larger than ${MAX_LIST_BYTES} bytes`,
        id,
      );
    }
    if (this.#streams.size >= this.#limits.streams) {
      throw new Http2Error(
        'REFUSED_STREAM',
        `streams of a connection must not be more than ${this.#limits.streams}`,
        id,
      );
    }
    const headers: RequestHeaders = parseRequestHeaders(id, fields);
    const stream = new ServerStream(id, headers, this.#streamWindow, this);
    stream.requestEnded = endStream;
    if (endStream) assertBody(stream, true);
    this.#streams.set(id, stream);
    this.#serve(stream, () => this.#host.opened(stream));
    if (endStream) this.#endRequest(stream);
  }

  /** The end of a request; what else trailers say is nobody's concern. */
  #takeTrailers({ stream: id, endStream, fields = [] }: HeaderBlock): void {
    const stream = this.#streams.get(id);
    if (!stream) {
      if (this.#isOnItsWay(id)) return;
      // The last one was opened; of one before it nobody knows.
      const code = id === this.#lastStream ? 'STREAM_CLOSED' : 'PROTOCOL_ERROR';
      throw new Http2Error(code, 'streams must be opened once, in ascending order');
    }
    if (!endStream || stream.requestEnded)
      throw new Http2Error('PROTOCOL_ERROR', 'trailers must end their request', id);
    assertTrailers(id, fields);
    assertBody(stream, true);
    this.#endRequest(stream);
  }

  #endRequest(stream: ServerStream): void {
    if (stream.over) return;
    stream.requestEnded = true;
    this.#serve(stream, () => stream.listener?.end());
  }

  #takeSettings(each: Frame): void {
    const settings = readSettings(each, !this.#settled);
    if (settings === undefined) return;
    this.#settled = true;
    const window = settings.get(SETTING.INITIAL_WINDOW_SIZE) ?? this.#streamWindow;
    // Once a frame, whatever it says how often: each change concerns every stream.
    if (window !== this.#streamWindow) this.#changeStreamWindow(window);
    this.#send(frame(FRAME.SETTINGS, FLAG.ACK, 0, Buffer.alloc(0)));
  }

  #changeStreamWindow(window: number): void {
    const by = window - this.#streamWindow;
    this.#streamWindow = window;
    for (const stream of this.#streams.values()) {
      stream.sendWindow = widened(stream.sendWindow, by);
      if (by > 0) this.#ready.add(stream);
    }
  }

  #takeWindow(each: Frame): void {
    const place = each.stream === 0 ? undefined : each.stream;
    if (place !== undefined) this.#assertOpened(each);
    const bytes = readWindow(each);
    const stream = this.#streams.get(each.stream);
    if (place === undefined) {
      this.#sendWindow = widened(this.#sendWindow, bytes);
    } else if (stream) {
      stream.sendWindow = widened(stream.sendWindow, bytes, place);
      this.#ready.add(stream);
    }
  }

  /** Runs code of who serves a stream: what goes wrong there ends that stream alone. */
  #serve(stream: ServerStream, work: () => void): void {
    try {
      work();
    } catch (caught) {
      this.#host.failed(caught);
      if (stream.over) return;
      this.#send(resetFrame(stream.id, 'INTERNAL_ERROR'));
      this.#lose(stream);
    }
  }

  /** A client's fault in one stream. */
  #refuse(violation: Http2Error, id: number): void {
    this.#host.refused(violation);
    this.#send(resetFrame(id, violation.code));
    const stream = this.#streams.get(id);
    if (stream) this.#lose(stream);
    else this.#cutOff(id);
  }

  /** A client's fault that ends its connection, or ours. */
  #abort(caught: unknown): void {
    const violation =
      caught instanceof Http2Error ? caught : new Http2Error('INTERNAL_ERROR', 'internal error');
    if (caught instanceof Http2Error) this.#host.refused(caught);
    else this.#host.failed(caught);
    this.#goodbye ??= this.#lastStream;
    this.#send(goawayFrame(this.#goodbye, violation.code, violation.rule));
    this.#flush();
    this.#close();
    if (this.#blocked) {
      this.#socket.destroy();
      return;
    }
    // With TLS the words are on their way only later. Nothing more is read; who does not take them is swept.
    this.#socket.pause();
    this.#socket.destroySoon();
  }

  #lose(stream: ServerStream): void {
    const { listener } = stream;
    this.#forget(stream);
    try {
      listener?.gone();
    } catch (caught) {
      this.#host.failed(caught);
    }
  }

  #forget(stream: ServerStream): void {
    stream.over = true;
    stream.listener = undefined;
    this.#streams.delete(stream.id);
    this.#ready.delete(stream);
    if (!stream.requestEnded) this.#cutOff(stream.id);
    this.#endIfLeft();
  }

  #cutOff(id: number): void {
    this.#cutShort.add(id);
    const [oldest] = this.#cutShort;
    if (this.#cutShort.size > 2 * this.#limits.streams) this.#cutShort.delete(oldest!);
  }

  /** Whether a client may still send for a stream that is not open: it did not know yet that it is over, or was never served. */
  #isOnItsWay(id: number): boolean {
    return this.#cutShort.has(id) || (this.#goodbye !== undefined && id > this.#goodbye);
  }

  /** The end of an answer has been sent. */
  #finish(stream: ServerStream): void {
    if (stream.requestEnded) this.#budget.callEnded();
    // The client need not send the rest of a request that has been answered (RFC 9113 section 8.1).
    else this.#send(resetFrame(stream.id, 'NO_ERROR'));
    this.#forget(stream);
  }

  #endIfLeft(): void {
    if (this.#goodbye === undefined || this.#ended || this.#streams.size > 0) return;
    this.#flush();
    this.#ended = true;
    this.#socket.end();
  }

  #close(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const stream of [...this.#streams.values()]) this.#lose(stream);
    this.#blocks.drop();
    this.#frames = undefined;
    this.#chunks.length = 0;
    this.#out = [];
    this.#written = [];
  }

  #send(bytes: Buffer | undefined): void {
    if (this.#ended || bytes === undefined) return;
    this.#out.push(bytes);
    this.#outBytes += bytes.length;
    this.#flushSoon();
  }

  #flushSoon(): void {
    if (this.#flushing || this.#ended) return;
    this.#flushing = true;
    queueMicrotask(() => this.#flush());
  }

  /** The next batch, when the turn of the event loop has time for it. */
  readonly #more = () => this.#flush();

  #flush(): void {
    this.#flushing = false;
    if (this.#ended) return;
    if (!this.#blocked) this.#fill();
    if (this.#out.length === 0) return;
    const [bytes, written] = [Buffer.concat(this.#out), this.#written];
    this.#out = [];
    this.#outBytes = 0;
    this.#written = [];
    const taken = this.#socket.write(bytes, (error) => {
      if (!error) for (const each of written) each();
    });
    if (!taken && !this.#blocked) {
      this.#blocked = true;
      this.#readOrNot();
    }
    // The batch was full, and the socket took it at once: it tells nobody when it has room, which it has.
    if (!this.#blocked && this.#ready.size > 0 && !this.#flushing) {
      this.#flushing = true;
      TURN.wait(this.#more);
    }
  }

  #drained(): void {
    if (!this.#blocked) return;
    this.#blocked = false;
    this.#readOrNot();
    this.#flush();
  }

  /** Puts frames of streams that may send into the batch, in turns. */
  #fill(): void {
    for (const stream of this.#ready) {
      if (this.#outBytes >= BATCH_BYTES) return;
      this.#ready.delete(stream);
      const trailers = stream.dueTrailers;
      if (trailers) {
        this.headers(stream, trailers, true);
        continue;
      }
      const room = Math.min(MAX_FRAME_BYTES, stream.sendWindow, this.#sendWindow);
      // A wider window of the stream makes it ready again; one of the connection finds it waiting.
      if (!stream.hasBody || stream.sendWindow <= 0) continue;
      if (room <= 0) {
        this.#ready.add(stream);
        return;
      }
      this.#sendData(stream, room);
      this.#ready.add(stream);
    }
  }

  #sendData(stream: ServerStream, room: number): void {
    const { parts, bytes, written } = stream.take(room);
    stream.sendWindow -= bytes;
    this.#sendWindow -= bytes;
    this.#out.push(frameHead(FRAME.DATA, 0, stream.id, bytes), ...parts);
    this.#outBytes += bytes;
    this.#written.push(...written);
    this.#budget.dataSent();
  }

  #assertOpened(each: Frame): void {
    if (each.stream === 0 || each.stream % 2 === 0 || each.stream > this.#lastStream) {
      throw new Http2Error('PROTOCOL_ERROR', 'a frame must be of a stream that was opened');
    }
  }
}

/** A body must be as long as its `content-length`, where it has one (RFC 9113 section 8.1.1). */
function assertBody({ id, headers, bodyBytes }: ServerStream, whole: boolean): void {
  const { contentLength } = headers;
  if (
    contentLength === undefined ||
    (whole ? bodyBytes === contentLength : bodyBytes <= contentLength)
  )
    return;
  throw new Http2Error('PROTOCOL_ERROR', 'a body must be as long as its content-length', id);
}
