import { GrpcStatus } from '../../agent/http2/grpc-status';
import type { Field } from '../../agent/http2/hpack';
import type { ServerStream } from '../../agent/http2/server-stream';
import type { Connection } from './connections';
import { ENCODINGS } from './message-reader';
import { lengthOf, type Pieces } from './pieces';

/** What who answers a call is told. */
export interface CallListener {
  /** The next message of a call of many. It is the listener's to keep. */
  message?(bytes: Buffer): void;
  /** No further message comes. */
  end?(): void;
  /** The client gave up, or its time is over: nobody hears an answer any more. */
  gone(): void;
}

const HEADERS: readonly Field[] = [
  [':status', '200'],
  ['content-type', 'application/grpc'],
  ['grpc-accept-encoding', ENCODINGS],
];

/**
 * One call of gRPC, as who answers it sees it. Messages are bytes: a malformed one gets our answer, and an encoded one is shared.
 *
 * @see https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
 */
export class Call {
  #answering = false;
  #over = false;
  readonly #endings: (() => void)[] = [];
  #listener: CallListener | undefined;

  constructor(
    private readonly stream: ServerStream,
    readonly connection: Connection,
  ) {}

  /** Who is told from now on; at once where the client has gone already. */
  follow(listener: CallListener): void {
    if (this.#over) listener.gone();
    else this.#listener = listener;
  }

  get listener(): CallListener | undefined {
    return this.#listener;
  }

  /** Runs that when the call is over, however it ends. */
  atEnd(run: () => void): void {
    this.#endings.push(run);
  }

  /** Whether nobody hears an answer any more: it was given, or the client has gone. */
  get over(): boolean {
    return this.#over;
  }

  /** Every value of a header, in order. */
  header(name: string): readonly string[] {
    return this.stream.headers.values(name);
  }

  /** @param written  Called when the message has left this process; never where it has not. */
  send(message: Pieces, written?: () => void): void {
    if (this.#over) return;
    if (!this.#answering) this.stream.respond(HEADERS);
    this.#answering = true;
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(lengthOf(message), 1);
    const pieces = [prefix, ...message];
    for (const [index, piece] of pieces.entries())
      this.stream.write(piece, index === pieces.length - 1 ? written : undefined);
  }

  /** Ends the call, once what was sent before has gone out. */
  finish(code: GrpcStatus = GrpcStatus.OK, details = ''): void {
    if (this.#over) return;
    const status: Field[] = [['grpc-status', String(code)]];
    if (details !== '') status.push(['grpc-message', percentEncoded(details)]);
    if (this.#answering) this.stream.end(status);
    else this.stream.respond([...HEADERS, ...status], true);
    this.#close();
  }

  /** The client is not there any more. */
  lose(): void {
    const listener = this.#listener;
    this.#close();
    listener?.gone();
  }

  /** Ends the call over the head of who answers it: its request is unreadable, or its time is over. */
  fail(code: GrpcStatus, details: string): void {
    const listener = this.#listener;
    this.finish(code, details);
    listener?.gone();
  }

  #close(): void {
    if (this.#over) return;
    this.#over = true;
    this.#listener = undefined;
    for (const run of this.#endings) run();
  }
}

/** As `grpc-message` wants it: UTF-8, and each octet that is not printable ASCII as its hex. */
function percentEncoded(text: string): string {
  return [...Buffer.from(text)]
    .map((byte) =>
      byte >= 0x20 && byte < 0x7f && byte !== 0x25 ? String.fromCharCode(byte) : hexOf(byte),
    )
    .join('');
}

function hexOf(byte: number): string {
  return `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
}
