import type { ClientConnection } from '../../agent/http2/client-connection';
import { GrpcStatus } from '../../agent/http2/grpc-status';
import type { Field } from '../../agent/http2/hpack';
import { lengthPrefixed, PREFIX_BYTES } from '../../agent/http2/length-prefixed';
import { CallStream } from './call-stream';
import { Http2SubchannelCall, Metadata } from './grpc-js';

/** One unary call of gRPC. */
export interface UnaryRequest {
  readonly scheme: 'https' | 'http';
  readonly authority: string;
  /** `/package.Service/Method`. */
  readonly path: string;
  readonly userAgent: string;
  readonly metadata: Metadata;
  readonly message: Uint8Array;
  /** The longest message that is taken in, bytes. */
  readonly maxReplyBytes: number;
}

/** How a call ended. */
export interface UnaryOutcome {
  /** Of `GrpcStatus`, or what a server made up. */
  readonly code: number;
  readonly details: string;
  readonly trailers: Metadata;
  /** Those before the message; undefined where none came. */
  readonly headers: Metadata | undefined;
  /** Where the status is OK, and only then. */
  readonly message: Buffer | undefined;
}

type Listener = ConstructorParameters<typeof Http2SubchannelCall>[2];
type Transport = ConstructorParameters<typeof Http2SubchannelCall>[3];

const NO_TRACKING = { onStreamEnd: () => undefined, onCallEnd: () => undefined } as const;

/**
 * One call over a connection that is there: grpc-js's own call, which knows what statuses, trailers and resets mean, on our HTTP/2. No
 * channel stands behind it: which connection is used, and whether one is tried again, is the caller's to say.
 *
 * @param signal  Ends the call, with CANCELLED.
 */
export function callUnary(
  connection: ClientConnection,
  request: UnaryRequest,
  signal: AbortSignal,
): Promise<UnaryOutcome> {
  return new Promise((resolve) => {
    let headers: Metadata | undefined;
    let message: Buffer | undefined;
    const cancel = () => call.cancelWithStatus(GrpcStatus.CANCELLED, 'Cancelled on client');
    const listener: Listener = {
      onReceiveMetadata: (received) => {
        headers = received;
      },
      onReceiveMessage: (received: Buffer) => {
        if (message) call.cancelWithStatus(GrpcStatus.UNIMPLEMENTED, 'Too many responses received');
        else if (received[0] !== 0) call.cancelWithStatus(GrpcStatus.INTERNAL, COMPRESSED);
        message = received.subarray(PREFIX_BYTES);
        call.startRead();
      },
      onReceiveStatus: ({ code, details, metadata }) => {
        signal.removeEventListener('abort', cancel);
        const isMissing = code === GrpcStatus.OK && message === undefined;
        resolve({
          code: isMissing ? GrpcStatus.UNIMPLEMENTED : code,
          details: isMissing ? 'No response received' : details,
          trailers: metadata instanceof Metadata ? metadata : new Metadata(),
          headers,
          message: code === GrpcStatus.OK ? message : undefined,
        });
      },
    };
    const stream = new CallStream(connection, fieldsOf(request), () => call.onDisconnect());
    const call = new Http2SubchannelCall(
      stream as never,
      { ...NO_TRACKING, addMessageSent: () => undefined, addMessageReceived: () => undefined },
      listener,
      transportOf(request) as Transport,
      0,
    );
    signal.addEventListener('abort', cancel, { once: true });
    if (signal.aborted) return cancel();
    call.sendMessageWithContext({}, lengthPrefixed(request.message));
    call.halfClose();
    call.startRead();
  });
}

/** Of a reply that its server has packed, though nothing was said to be taken. */
export const COMPRESSED = 'Received compressed message, which was not asked for';

/** What a call asks of the library's own transport. */
function transportOf({ authority, maxReplyBytes }: UnaryRequest) {
  return {
    getOptions: () => ({ 'grpc.max_receive_message_length': maxReplyBytes }),
    getPeerName: () => authority,
    getAuthContext: () => ({}),
  };
}

function fieldsOf({ scheme, authority, path, userAgent, metadata }: UnaryRequest): Field[] {
  const own: Field[] = [
    [':method', 'POST'],
    [':scheme', scheme],
    [':path', path],
    [':authority', authority],
    ['content-type', 'application/grpc'],
    ['te', 'trailers'],
    ['user-agent', userAgent],
  ];
  const others = Object.entries(metadata.toHttp2Headers()).flatMap(([name, values]) =>
    [values ?? []].flat().map((value): Field => [name, String(value)]),
  );
  return [...own, ...others];
}
