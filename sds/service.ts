import type { MethodDefinition, ServiceDefinition } from '@grpc/grpc-js';
import { SecretDiscoveryServiceDefinition } from './proto/generated/envoy/service/secret/v3/sds';

interface Method {
  readonly name: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
}

/** The service as gRPC wants it. Messages cross it as bytes, so that a malformed one gets our answer and an encoded one is shared. */
export const SECRET_DISCOVERY_SERVICE: ServiceDefinition = Object.fromEntries(
  Object.values(SecretDiscoveryServiceDefinition.methods).map((method) => [method.name, bytesMethod(method)]),
);

function bytesMethod(method: Method): MethodDefinition<Buffer, Buffer> {
  return {
    path: `/${SecretDiscoveryServiceDefinition.fullName}/${method.name}`,
    requestStream: method.requestStream,
    responseStream: method.responseStream,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
}

function same(bytes: Buffer): Buffer {
  return bytes;
}
