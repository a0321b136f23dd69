import type { Field } from './hpack';
import type { ErrorName } from './http2-error';
import { ReceiveWindow } from './receive-window';
import type { RequestHeaders } from './request-headers';

/** What who serves a stream is told. Nothing is told after `gone`, nor after the stream was ended from here. */
export interface StreamListener {
  /** Octets of the request; not to be kept. */
  data(chunk: Buffer): void;
  /** The request is whole. */
  end(): void;
  /** The client reset the stream or hung up, or one of them broke a rule. */
  gone(): void;
}

/** A piece of a body that waits for its turn. */
interface Waiting {
  readonly bytes: Uint8Array;
  readonly written: (() => void) | undefined;
}

/** What a stream needs of its connection. */
export interface StreamOwner {
  headers(stream: ServerStream, fields: readonly Field[], endStream: boolean): void;
  /** The stream has something to send. */
  wake(stream: ServerStream): void;
  reset(stream: ServerStream, code: ErrorName): void;
}

/** One request and its answer on a connection of HTTP/2. */
export class ServerStream {
  readonly #owner: StreamOwner;
  readonly #waiting: Waiting[] = [];
  #offset = 0;
  #trailers: readonly Field[] | undefined;
  listener: StreamListener | undefined;
  /** Octets that the client will still take. */
  sendWindow: number;
  readonly receiveWindow: ReceiveWindow;
  /** Octets of the request's body so far. */
  bodyBytes = 0;
  /** The client has sent all that it will of its request. */
  requestEnded = false;
  /** Over: ended from here, reset, or gone with its connection. */
  over = false;

  constructor(
    readonly id: number,
    readonly headers: RequestHeaders,
    sendWindow: number,
    owner: StreamOwner,
  ) {
    this.sendWindow = sendWindow;
    this.receiveWindow = new ReceiveWindow(id);
    this.#owner = owner;
  }

  /** Sends the response's headers, and with `endStream` nothing more. */
  respond(fields: readonly Field[], endStream = false): void {
    if (!this.over) this.#owner.headers(this, fields, endStream);
  }

  /**
   * Sends a piece of the body as the client takes it.
   *
   * @param written  Called when all of it has left this process; never where it has not.
   */
  write(bytes: Uint8Array, written?: () => void): void {
    if (this.over || this.#trailers) return;
    this.#waiting.push({ bytes, written });
    this.#owner.wake(this);
  }

  /** Ends the stream with trailers, once the body before them has been sent. */
  end(trailers: readonly Field[]): void {
    if (this.over || this.#trailers) return;
    this.#trailers = trailers;
    this.#owner.wake(this);
  }

  reset(code: ErrorName): void {
    if (!this.over) this.#owner.reset(this, code);
  }

  /** Whether body is left to send. */
  get hasBody(): boolean {
    return this.#waiting.length > 0;
  }

  /** The trailers once it is their turn. */
  get dueTrailers(): readonly Field[] | undefined {
    return this.hasBody ? undefined : this.#trailers;
  }

  /** The next octets of the body, at most so many, in pieces that are shared with others; and whom to tell when they have left. */
  take(maxBytes: number): {
    readonly parts: readonly Uint8Array[];
    readonly bytes: number;
    readonly written: readonly (() => void)[];
  } {
    const parts: Uint8Array[] = [];
    const written: (() => void)[] = [];
    let bytes = 0;
    while (this.#waiting.length > 0 && bytes < maxBytes) {
      const first = this.#waiting[0]!;
      const part = first.bytes.subarray(this.#offset, this.#offset + maxBytes - bytes);
      parts.push(part);
      bytes += part.length;
      this.#offset += part.length;
      if (this.#offset < first.bytes.length) break;
      this.#waiting.shift();
      this.#offset = 0;
      if (first.written) written.push(first.written);
    }
    return { parts, bytes, written };
  }
}
