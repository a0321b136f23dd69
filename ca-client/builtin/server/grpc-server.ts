import type { Socket } from 'node:net';
import {
  status as GrpcStatus,
  Server,
  ServerCredentials,
  ServerInterceptingCall,
  type ServerInterceptor,
  type ServerUnaryCall,
  type sendUnaryData,
} from '@grpc/grpc-js';
import type { Deps } from '../../../agent/base/deps';
import { CREATE_CERTIFICATE } from '../../istio/service';
import type { CertificateService } from './certificate-service';
import type { Connections } from './connections';
import { LIMITS, PATIENCE } from './limits';
import { grpcStatus } from './status';

export interface GrpcServer {
  /** Speaks HTTP/2 on a socket whose TLS handshake is done. */
  serve(socket: Socket): void;
  close(): void;
}

/** gRPC around the service: one method, and neither reflection nor channelz nor health beside it. */
export function createGrpcServer(service: CertificateService, connections: Connections, deps: Deps): GrpcServer {
  const grpc = new Server({
    'grpc.max_receive_message_length': LIMITS.requestBytes,
    'grpc.max_concurrent_streams': LIMITS.callsPerConnection,
    'grpc.max_connection_idle_ms': PATIENCE.idleConnectionMs,
    'grpc.keepalive_time_ms': PATIENCE.keepaliveMs,
    'grpc.keepalive_timeout_ms': PATIENCE.keepaliveTimeoutMs,
    'grpc-node.max_session_memory': LIMITS.sessionMegabytes,
    'grpc.enable_channelz': 0,
    interceptors: [boundedArrival(connections, deps)],
  });
  const createCertificate = (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) => {
    const connection = connections.find(call.getPeer());
    // Gone while its last bytes were read: nobody is there to be answered.
    if (connection === undefined) return callback({ code: GrpcStatus.CANCELLED });
    service.answer({ request: call.request, metadata: call.metadata, connection }).then((answer) => {
      if (answer.kind === 'issued') callback(null, answer.reply);
      else callback(grpcStatus(answer.refusal));
    });
  };
  grpc.addService({ CreateCertificate: CREATE_CERTIFICATE }, { CreateCertificate: createCertificate });
  const injector = grpc.createConnectionInjector(ServerCredentials.createInsecure());
  return {
    serve: (socket) => injector.injectConnection(socket),
    close: () => {
      injector.destroy();
      grpc.forceShutdown();
    },
  };
}

/** Counts the calls whose request has not arrived whole, of which the handler knows nothing, and ends those that take too long. */
function boundedArrival(connections: Connections, deps: Deps): ServerInterceptor {
  return (_method, call) =>
    new ServerInterceptingCall(call, {
      start: (next) => {
        const entry = {
          end: () => call.sendStatus({ code: GrpcStatus.DEADLINE_EXCEEDED, details: 'the request took too long to arrive' }),
        };
        if (!connections.callOpened(call.getPeer(), entry)) {
          deps.metrics.record('ca_refused_total', { reason: 'calls' });
          const refusal = { code: GrpcStatus.RESOURCE_EXHAUSTED, message: 'too many calls', retryAfterMs: PATIENCE.comeAgainMs };
          call.sendStatus(grpcStatus(refusal));
          return;
        }
        const done = () => connections.callComplete(entry);
        next({
          onReceiveHalfClose: (halfClosed) => {
            done();
            halfClosed();
          },
          onCancel: done,
        });
      },
    });
}
