import type { MethodDefinition, ServiceDefinition } from '@grpc/grpc-js';

/** The methods of the SPIFFE Workload API whose answer is a stream. Written out: the start reads no codec of their messages for them. */
export const STREAMED_METHODS = ['FetchX509SVID', 'FetchX509Bundles', 'FetchJWTBundles'] as const;
export type StreamedMethod = (typeof STREAMED_METHODS)[number];

/** Those with one answer. */
export const UNARY_METHODS = ['FetchJWTSVID', 'ValidateJWTSVID'] as const;
export type UnaryMethod = (typeof UNARY_METHODS)[number];

/** The service as gRPC wants it. Messages cross it as bytes, as those of the secret discovery service do. */
export const WORKLOAD_API_SERVICE: ServiceDefinition = Object.fromEntries([
  ...STREAMED_METHODS.map((name) => [name, bytesMethod(name, true)]),
  ...UNARY_METHODS.map((name) => [name, bytesMethod(name, false)]),
]);

function bytesMethod(name: string, responseStream: boolean): MethodDefinition<Buffer, Buffer> {
  return {
    // The service has no package.
    path: `/SpiffeWorkloadAPI/${name}`,
    requestStream: false,
    responseStream,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
}

function same(bytes: Buffer): Buffer {
  return bytes;
}
