import type { Server as HttpServer } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import type { Deps } from './deps';
import { endInTime } from './end-in-time';
import { OverSocket } from './over-socket';

/** The end of a request's header, RFC 9112 section 2.1. */
const END = Buffer.from('\r\n\r\n');

/**
 * A listener for an HTTP server that answers one GET or HEAD a connection: the server is shown each connection up to the end of its first
 * header, and what follows is read and dropped. An HTTP parser makes objects of all requests that one read has brought, hundreds of them,
 * before the first is answered.
 *
 * @param headerMs  In which the whole header has to come; the timeouts of a server that does not itself listen do not run.
 */
export function firstRequestOnly(
  server: HttpServer,
  headerMs: number,
  deps: Pick<Deps, 'clock'>,
): Server {
  return createServer((socket) => {
    const headerCame = endInTime(socket, headerMs, deps);
    server.emit('connection', new FirstRequest(socket, headerCame));
  });
}

class FirstRequest extends OverSocket {
  /** The last octets of what was shown, for an end that two reads bring; undefined once the header is over. */
  #tail: Buffer | undefined = Buffer.alloc(0);

  constructor(
    raw: Socket,
    private readonly headerCame: () => void,
  ) {
    super(raw);
    raw.on('error', () => undefined);
  }

  /** As a socket's: the HTTP server calls it where it has one, after an answer that is its last. */
  destroySoon(): void {
    this.end(() => this.destroy());
  }

  override _read(): void {
    this.raw.resume();
  }

  protected received(chunk: Buffer): void {
    if (this.#tail === undefined) return;
    const seen = Buffer.concat([this.#tail, chunk]);
    const at = seen.indexOf(END);
    const shown = at < 0 ? chunk : chunk.subarray(0, at + END.length - this.#tail.length);
    this.#tail = at < 0 ? seen.subarray(-(END.length - 1)) : undefined;
    if (at >= 0) this.headerCame();
    if (!this.push(shown) && at < 0) this.raw.pause();
  }
}
