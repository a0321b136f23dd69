import { SecretDiscoveryServiceDefinition } from '../proto/generated/envoy/service/secret/v3/sds';

const { fullName, methods } = SecretDiscoveryServiceDefinition;

/** The path of a method of the service by which Envoy asks for secrets. */
export function secretDiscoveryPath(method: keyof typeof methods): string {
  return `/${fullName}/${methods[method].name}`;
}
