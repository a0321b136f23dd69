import { EventEmitter } from 'node:events';
import type { ClientConnection, ClientStream } from '../../agent/http2/client-connection';
import type { Field } from '../../agent/http2/hpack';
import { ERROR_CODE, type ErrorName } from '../../agent/http2/http2-error';

/** Of a HEADERS frame with which a response ends. */
const END_STREAM = 1;

/**
 * A stream of our HTTP/2 as grpc-js's call sees one of the runtime's: as much of `http2.ClientHttp2Stream` as it touches. The request goes
 * out when it is whole.
 */
export class CallStream extends EventEmitter {
  rstCode: number = ERROR_CODE.NO_ERROR;
  destroyed = false;
  writableEnded = false;
  readonly #parts: Uint8Array[] = [];
  #stream: ClientStream | undefined;

  /**
   * @param fields  Of the request.
   * @param lost    Called where the connection is lost under it, before `close`.
   */
  constructor(
    private readonly connection: ClientConnection,
    private readonly fields: readonly Field[],
    private readonly lost: () => void,
  ) {
    super();
  }

  write(bytes: Uint8Array, written: () => void): void {
    this.#parts.push(bytes);
    process.nextTick(written);
  }

  end(): void {
    if (this.writableEnded) return;
    this.writableEnded = true;
    this.#stream = this.connection.request(this.fields, Buffer.concat(this.#parts), {
      headers: ({ status, fields }, endStream) =>
        this.emit('response', asObject(status, fields), endStream ? END_STREAM : 0),
      data: (chunk) => this.emit('data', Buffer.from(chunk)),
      trailers: (fields) => this.emit('trailers', asObject(undefined, fields)),
      end: () => this.emit('end'),
      closed: (code, connection) => {
        if (connection) this.lost();
        this.#closed(code);
      },
    });
  }

  /** @param code  Of RFC 9113 section 7. */
  close(code: number): void {
    const [name] = Object.entries(ERROR_CODE).find(([, each]) => each === code) ?? ['CANCEL'];
    if (this.#stream) this.#stream.reset(name as ErrorName);
    else this.#closed(code);
  }

  /** What comes is bounded by whoever reads it: a unary call is given up at its second message. */
  pause(): void {}

  resume(): void {}

  #closed(code: number): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.rstCode = code;
    this.emit('close');
  }
}

/** As `http2.IncomingHttpHeaders`: values of one name are one (RFC 9110 section 5.3). */
function asObject(
  status: number | undefined,
  fields: readonly Field[],
): Readonly<Record<string, string | number>> {
  const headers: Record<string, string | number> = Object.create(null);
  if (status !== undefined) headers[':status'] = status;
  for (const [name, value] of fields)
    headers[name] = name in headers ? `${headers[name]}, ${value}` : value;
  return headers;
}
