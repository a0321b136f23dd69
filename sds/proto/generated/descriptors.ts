// Made by scripts/generate from the .proto files. DO NOT EDIT.

/** A .proto file: what it defines, by full names, and its FileDescriptorProto. */
export interface DescribedFile {
  readonly name: string;
  readonly imports: readonly string[];
  readonly services: readonly string[];
  readonly symbols: readonly string[];
  readonly base64: string;
}

export const DESCRIBED_FILES: readonly DescribedFile[] = [
  {
    "name": "envoy/config/core/v3/base.proto",
    "imports": [],
    "services": [],
    "symbols": [
      "envoy.config.core.v3.Node",
      "envoy.config.core.v3.DataSource"
    ],
    "base64": "Ch9lbnZveS9jb25maWcvY29yZS92My9iYXNlLnByb3RvEhRlbnZveS5jb25maWcuY29yZS52MyIwCgROb2RlEg4KAmlkGAEgASgJUgJpZBIYCgdjbHVzdGVyGAIgASgJUgdjbHVzdGVyIoMBCgpEYXRhU291cmNlEhwKCGZpbGVuYW1lGAEgASgJSABSCGZpbGVuYW1lEiMKDGlubGluZV9ieXRlcxgCIAEoDEgAUgtpbmxpbmVCeXRlcxIlCg1pbmxpbmVfc3RyaW5nGAMgASgJSABSDGlubGluZVN0cmluZ0ILCglzcGVjaWZpZXJiBnByb3RvMw=="
  },
  {
    "name": "google/protobuf/any.proto",
    "imports": [],
    "services": [],
    "symbols": [
      "google.protobuf.Any"
    ],
    "base64": "Chlnb29nbGUvcHJvdG9idWYvYW55LnByb3RvEg9nb29nbGUucHJvdG9idWYiNgoDQW55EhkKCHR5cGVfdXJsGAEgASgJUgd0eXBlVXJsEhQKBXZhbHVlGAIgASgMUgV2YWx1ZUJ2ChNjb20uZ29vZ2xlLnByb3RvYnVmQghBbnlQcm90b1ABWixnb29nbGUuZ29sYW5nLm9yZy9wcm90b2J1Zi90eXBlcy9rbm93bi9hbnlwYqICA0dQQqoCHkdvb2dsZS5Qcm90b2J1Zi5XZWxsS25vd25UeXBlc2IGcHJvdG8z"
  },
  {
    "name": "envoy/config/core/v3/extension.proto",
    "imports": [
      "google/protobuf/any.proto"
    ],
    "services": [],
    "symbols": [
      "envoy.config.core.v3.TypedExtensionConfig"
    ],
    "base64": "CiRlbnZveS9jb25maWcvY29yZS92My9leHRlbnNpb24ucHJvdG8SFGVudm95LmNvbmZpZy5jb3JlLnYzGhlnb29nbGUvcHJvdG9idWYvYW55LnByb3RvImMKFFR5cGVkRXh0ZW5zaW9uQ29uZmlnEhIKBG5hbWUYASABKAlSBG5hbWUSNwoMdHlwZWRfY29uZmlnGAIgASgLMhQuZ29vZ2xlLnByb3RvYnVmLkFueVILdHlwZWRDb25maWdiBnByb3RvMw=="
  },
  {
    "name": "envoy/extensions/transport_sockets/tls/v3/secret.proto",
    "imports": [
      "envoy/config/core/v3/base.proto",
      "envoy/config/core/v3/extension.proto"
    ],
    "services": [],
    "symbols": [
      "envoy.extensions.transport_sockets.tls.v3.Secret",
      "envoy.extensions.transport_sockets.tls.v3.TlsCertificate",
      "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext"
    ],
    "base64": "CjZlbnZveS9leHRlbnNpb25zL3RyYW5zcG9ydF9zb2NrZXRzL3Rscy92My9zZWNyZXQucHJvdG8SKWVudm95LmV4dGVuc2lvbnMudHJhbnNwb3J0X3NvY2tldHMudGxzLnYzGh9lbnZveS9jb25maWcvY29yZS92My9iYXNlLnByb3RvGiRlbnZveS9jb25maWcvY29yZS92My9leHRlbnNpb24ucHJvdG8ihAIKBlNlY3JldBISCgRuYW1lGAEgASgJUgRuYW1lEmQKD3Rsc19jZXJ0aWZpY2F0ZRgCIAEoCzI5LmVudm95LmV4dGVuc2lvbnMudHJhbnNwb3J0X3NvY2tldHMudGxzLnYzLlRsc0NlcnRpZmljYXRlSABSDnRsc0NlcnRpZmljYXRlEngKEnZhbGlkYXRpb25fY29udGV4dBgEIAEoCzJHLmVudm95LmV4dGVuc2lvbnMudHJhbnNwb3J0X3NvY2tldHMudGxzLnYzLkNlcnRpZmljYXRlVmFsaWRhdGlvbkNvbnRleHRIAFIRdmFsaWRhdGlvbkNvbnRleHRCBgoEdHlwZSKiAQoOVGxzQ2VydGlmaWNhdGUSTQoRY2VydGlmaWNhdGVfY2hhaW4YASABKAsyIC5lbnZveS5jb25maWcuY29yZS52My5EYXRhU291cmNlUhBjZXJ0aWZpY2F0ZUNoYWluEkEKC3ByaXZhdGVfa2V5GAIgASgLMiAuZW52b3kuY29uZmlnLmNvcmUudjMuRGF0YVNvdXJjZVIKcHJpdmF0ZUtleSKxAgocQ2VydGlmaWNhdGVWYWxpZGF0aW9uQ29udGV4dBI/Cgp0cnVzdGVkX2NhGAEgASgLMiAuZW52b3kuY29uZmlnLmNvcmUudjMuRGF0YVNvdXJjZVIJdHJ1c3RlZENhEjIKA2NybBgHIAEoCzIgLmVudm95LmNvbmZpZy5jb3JlLnYzLkRhdGFTb3VyY2VSA2NybBJiChdjdXN0b21fdmFsaWRhdG9yX2NvbmZpZxgMIAEoCzIqLmVudm95LmNvbmZpZy5jb3JlLnYzLlR5cGVkRXh0ZW5zaW9uQ29uZmlnUhVjdXN0b21WYWxpZGF0b3JDb25maWcSOAoZb25seV92ZXJpZnlfbGVhZl9jZXJ0X2NybBgOIAEoCFIVb25seVZlcmlmeUxlYWZDZXJ0Q3JsYgZwcm90bzM="
  },
  {
    "name": "envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.proto",
    "imports": [
      "envoy/config/core/v3/base.proto"
    ],
    "services": [],
    "symbols": [
      "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
      "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig.TrustDomain"
    ],
    "base64": "CktlbnZveS9leHRlbnNpb25zL3RyYW5zcG9ydF9zb2NrZXRzL3Rscy92My90bHNfc3BpZmZlX3ZhbGlkYXRvcl9jb25maWcucHJvdG8SKWVudm95LmV4dGVuc2lvbnMudHJhbnNwb3J0X3NvY2tldHMudGxzLnYzGh9lbnZveS9jb25maWcvY29yZS92My9iYXNlLnByb3RvIvoBChlTUElGRkVDZXJ0VmFsaWRhdG9yQ29uZmlnEnUKDXRydXN0X2RvbWFpbnMYASADKAsyUC5lbnZveS5leHRlbnNpb25zLnRyYW5zcG9ydF9zb2NrZXRzLnRscy52My5TUElGRkVDZXJ0VmFsaWRhdG9yQ29uZmlnLlRydXN0RG9tYWluUgx0cnVzdERvbWFpbnMaZgoLVHJ1c3REb21haW4SEgoEbmFtZRgBIAEoCVIEbmFtZRJDCgx0cnVzdF9idW5kbGUYAiABKAsyIC5lbnZveS5jb25maWcuY29yZS52My5EYXRhU291cmNlUgt0cnVzdEJ1bmRsZWIGcHJvdG8z"
  },
  {
    "name": "google/rpc/status.proto",
    "imports": [],
    "services": [],
    "symbols": [
      "google.rpc.Status"
    ],
    "base64": "Chdnb29nbGUvcnBjL3N0YXR1cy5wcm90bxIKZ29vZ2xlLnJwYyI2CgZTdGF0dXMSEgoEY29kZRgBIAEoBVIEY29kZRIYCgdtZXNzYWdlGAIgASgJUgdtZXNzYWdlYgZwcm90bzM="
  },
  {
    "name": "envoy/service/discovery/v3/discovery.proto",
    "imports": [
      "envoy/config/core/v3/base.proto",
      "google/protobuf/any.proto",
      "google/rpc/status.proto"
    ],
    "services": [],
    "symbols": [
      "envoy.service.discovery.v3.DiscoveryRequest",
      "envoy.service.discovery.v3.DiscoveryResponse",
      "envoy.service.discovery.v3.DeltaDiscoveryRequest",
      "envoy.service.discovery.v3.DeltaDiscoveryRequest.InitialResourceVersionsEntry",
      "envoy.service.discovery.v3.DeltaDiscoveryResponse",
      "envoy.service.discovery.v3.Resource"
    ],
    "base64": "CiplbnZveS9zZXJ2aWNlL2Rpc2NvdmVyeS92My9kaXNjb3ZlcnkucHJvdG8SGmVudm95LnNlcnZpY2UuZGlzY292ZXJ5LnYzGh9lbnZveS9jb25maWcvY29yZS92My9iYXNlLnByb3RvGhlnb29nbGUvcHJvdG9idWYvYW55LnByb3RvGhdnb29nbGUvcnBjL3N0YXR1cy5wcm90byKFAgoQRGlzY292ZXJ5UmVxdWVzdBIhCgx2ZXJzaW9uX2luZm8YASABKAlSC3ZlcnNpb25JbmZvEi4KBG5vZGUYAiABKAsyGi5lbnZveS5jb25maWcuY29yZS52My5Ob2RlUgRub2RlEiUKDnJlc291cmNlX25hbWVzGAMgAygJUg1yZXNvdXJjZU5hbWVzEhkKCHR5cGVfdXJsGAQgASgJUgd0eXBlVXJsEiUKDnJlc3BvbnNlX25vbmNlGAUgASgJUg1yZXNwb25zZU5vbmNlEjUKDGVycm9yX2RldGFpbBgGIAEoCzISLmdvb2dsZS5ycGMuU3RhdHVzUgtlcnJvckRldGFpbCKbAQoRRGlzY292ZXJ5UmVzcG9uc2USIQoMdmVyc2lvbl9pbmZvGAEgASgJUgt2ZXJzaW9uSW5mbxIyCglyZXNvdXJjZXMYAiADKAsyFC5nb29nbGUucHJvdG9idWYuQW55UglyZXNvdXJjZXMSGQoIdHlwZV91cmwYBCABKAlSB3R5cGVVcmwSFAoFbm9uY2UYBSABKAlSBW5vbmNlIpEEChVEZWx0YURpc2NvdmVyeVJlcXVlc3QSLgoEbm9kZRgBIAEoCzIaLmVudm95LmNvbmZpZy5jb3JlLnYzLk5vZGVSBG5vZGUSGQoIdHlwZV91cmwYAiABKAlSB3R5cGVVcmwSOAoYcmVzb3VyY2VfbmFtZXNfc3Vic2NyaWJlGAMgAygJUhZyZXNvdXJjZU5hbWVzU3Vic2NyaWJlEjwKGnJlc291cmNlX25hbWVzX3Vuc3Vic2NyaWJlGAQgAygJUhhyZXNvdXJjZU5hbWVzVW5zdWJzY3JpYmUSigEKGWluaXRpYWxfcmVzb3VyY2VfdmVyc2lvbnMYBSADKAsyTi5lbnZveS5zZXJ2aWNlLmRpc2NvdmVyeS52My5EZWx0YURpc2NvdmVyeVJlcXVlc3QuSW5pdGlhbFJlc291cmNlVmVyc2lvbnNFbnRyeVIXaW5pdGlhbFJlc291cmNlVmVyc2lvbnMSJQoOcmVzcG9uc2Vfbm9uY2UYBiABKAlSDXJlc3BvbnNlTm9uY2USNQoMZXJyb3JfZGV0YWlsGAcgASgLMhIuZ29vZ2xlLnJwYy5TdGF0dXNSC2Vycm9yRGV0YWlsGkoKHEluaXRpYWxSZXNvdXJjZVZlcnNpb25zRW50cnkSEAoDa2V5GAEgASgJUgNrZXkSFAoFdmFsdWUYAiABKAlSBXZhbHVlOgI4ASLqAQoWRGVsdGFEaXNjb3ZlcnlSZXNwb25zZRIuChNzeXN0ZW1fdmVyc2lvbl9pbmZvGAEgASgJUhFzeXN0ZW1WZXJzaW9uSW5mbxJCCglyZXNvdXJjZXMYAiADKAsyJC5lbnZveS5zZXJ2aWNlLmRpc2NvdmVyeS52My5SZXNvdXJjZVIJcmVzb3VyY2VzEhkKCHR5cGVfdXJsGAQgASgJUgd0eXBlVXJsEhQKBW5vbmNlGAUgASgJUgVub25jZRIrChFyZW1vdmVkX3Jlc291cmNlcxgGIAMoCVIQcmVtb3ZlZFJlc291cmNlcyJqCghSZXNvdXJjZRIYCgd2ZXJzaW9uGAEgASgJUgd2ZXJzaW9uEjAKCHJlc291cmNlGAIgASgLMhQuZ29vZ2xlLnByb3RvYnVmLkFueVIIcmVzb3VyY2USEgoEbmFtZRgDIAEoCVIEbmFtZWIGcHJvdG8z"
  },
  {
    "name": "envoy/service/secret/v3/sds.proto",
    "imports": [
      "envoy/service/discovery/v3/discovery.proto"
    ],
    "services": [
      "envoy.service.secret.v3.SecretDiscoveryService"
    ],
    "symbols": [
      "envoy.service.secret.v3.SecretDiscoveryService",
      "envoy.service.secret.v3.SecretDiscoveryService.DeltaSecrets",
      "envoy.service.secret.v3.SecretDiscoveryService.StreamSecrets",
      "envoy.service.secret.v3.SecretDiscoveryService.FetchSecrets"
    ],
    "base64": "CiFlbnZveS9zZXJ2aWNlL3NlY3JldC92My9zZHMucHJvdG8SF2Vudm95LnNlcnZpY2Uuc2VjcmV0LnYzGiplbnZveS9zZXJ2aWNlL2Rpc2NvdmVyeS92My9kaXNjb3ZlcnkucHJvdG8y8gIKFlNlY3JldERpc2NvdmVyeVNlcnZpY2USeQoMRGVsdGFTZWNyZXRzEjEuZW52b3kuc2VydmljZS5kaXNjb3ZlcnkudjMuRGVsdGFEaXNjb3ZlcnlSZXF1ZXN0GjIuZW52b3kuc2VydmljZS5kaXNjb3ZlcnkudjMuRGVsdGFEaXNjb3ZlcnlSZXNwb25zZSgBMAEScAoNU3RyZWFtU2VjcmV0cxIsLmVudm95LnNlcnZpY2UuZGlzY292ZXJ5LnYzLkRpc2NvdmVyeVJlcXVlc3QaLS5lbnZveS5zZXJ2aWNlLmRpc2NvdmVyeS52My5EaXNjb3ZlcnlSZXNwb25zZSgBMAESawoMRmV0Y2hTZWNyZXRzEiwuZW52b3kuc2VydmljZS5kaXNjb3ZlcnkudjMuRGlzY292ZXJ5UmVxdWVzdBotLmVudm95LnNlcnZpY2UuZGlzY292ZXJ5LnYzLkRpc2NvdmVyeVJlc3BvbnNlYgZwcm90bzM="
  },
  {
    "name": "grpc/health/v1/health.proto",
    "imports": [],
    "services": [
      "grpc.health.v1.Health"
    ],
    "symbols": [
      "grpc.health.v1.Health",
      "grpc.health.v1.Health.Check",
      "grpc.health.v1.Health.Watch",
      "grpc.health.v1.HealthCheckRequest",
      "grpc.health.v1.HealthCheckResponse",
      "grpc.health.v1.HealthCheckResponse.ServingStatus"
    ],
    "base64": "ChtncnBjL2hlYWx0aC92MS9oZWFsdGgucHJvdG8SDmdycGMuaGVhbHRoLnYxIi4KEkhlYWx0aENoZWNrUmVxdWVzdBIYCgdzZXJ2aWNlGAEgASgJUgdzZXJ2aWNlIrEBChNIZWFsdGhDaGVja1Jlc3BvbnNlEkkKBnN0YXR1cxgBIAEoDjIxLmdycGMuaGVhbHRoLnYxLkhlYWx0aENoZWNrUmVzcG9uc2UuU2VydmluZ1N0YXR1c1IGc3RhdHVzIk8KDVNlcnZpbmdTdGF0dXMSCwoHVU5LTk9XThAAEgsKB1NFUlZJTkcQARIPCgtOT1RfU0VSVklORxACEhMKD1NFUlZJQ0VfVU5LTk9XThADMq4BCgZIZWFsdGgSUAoFQ2hlY2sSIi5ncnBjLmhlYWx0aC52MS5IZWFsdGhDaGVja1JlcXVlc3QaIy5ncnBjLmhlYWx0aC52MS5IZWFsdGhDaGVja1Jlc3BvbnNlElIKBVdhdGNoEiIuZ3JwYy5oZWFsdGgudjEuSGVhbHRoQ2hlY2tSZXF1ZXN0GiMuZ3JwYy5oZWFsdGgudjEuSGVhbHRoQ2hlY2tSZXNwb25zZTABYgZwcm90bzM="
  },
  {
    "name": "grpc/reflection/v1/reflection.proto",
    "imports": [],
    "services": [
      "grpc.reflection.v1.ServerReflection"
    ],
    "symbols": [
      "grpc.reflection.v1.ServerReflection",
      "grpc.reflection.v1.ServerReflection.ServerReflectionInfo",
      "grpc.reflection.v1.ServerReflectionRequest",
      "grpc.reflection.v1.ExtensionRequest",
      "grpc.reflection.v1.ServerReflectionResponse",
      "grpc.reflection.v1.FileDescriptorResponse",
      "grpc.reflection.v1.ExtensionNumberResponse",
      "grpc.reflection.v1.ListServiceResponse",
      "grpc.reflection.v1.ServiceResponse",
      "grpc.reflection.v1.ErrorResponse"
    ],
    "base64": "CiNncnBjL3JlZmxlY3Rpb24vdjEvcmVmbGVjdGlvbi5wcm90bxISZ3JwYy5yZWZsZWN0aW9uLnYxIvMCChdTZXJ2ZXJSZWZsZWN0aW9uUmVxdWVzdBISCgRob3N0GAEgASgJUgRob3N0EioKEGZpbGVfYnlfZmlsZW5hbWUYAyABKAlIAFIOZmlsZUJ5RmlsZW5hbWUSNgoWZmlsZV9jb250YWluaW5nX3N5bWJvbBgEIAEoCUgAUhRmaWxlQ29udGFpbmluZ1N5bWJvbBJiChlmaWxlX2NvbnRhaW5pbmdfZXh0ZW5zaW9uGAUgASgLMiQuZ3JwYy5yZWZsZWN0aW9uLnYxLkV4dGVuc2lvblJlcXVlc3RIAFIXZmlsZUNvbnRhaW5pbmdFeHRlbnNpb24SQgodYWxsX2V4dGVuc2lvbl9udW1iZXJzX29mX3R5cGUYBiABKAlIAFIZYWxsRXh0ZW5zaW9uTnVtYmVyc09mVHlwZRIlCg1saXN0X3NlcnZpY2VzGAcgASgJSABSDGxpc3RTZXJ2aWNlc0IRCg9tZXNzYWdlX3JlcXVlc3QiZgoQRXh0ZW5zaW9uUmVxdWVzdBInCg9jb250YWluaW5nX3R5cGUYASABKAlSDmNvbnRhaW5pbmdUeXBlEikKEGV4dGVuc2lvbl9udW1iZXIYAiABKAVSD2V4dGVuc2lvbk51bWJlciKuBAoYU2VydmVyUmVmbGVjdGlvblJlc3BvbnNlEh0KCnZhbGlkX2hvc3QYASABKAlSCXZhbGlkSG9zdBJWChBvcmlnaW5hbF9yZXF1ZXN0GAIgASgLMisuZ3JwYy5yZWZsZWN0aW9uLnYxLlNlcnZlclJlZmxlY3Rpb25SZXF1ZXN0Ug9vcmlnaW5hbFJlcXVlc3QSZgoYZmlsZV9kZXNjcmlwdG9yX3Jlc3BvbnNlGAQgASgLMiouZ3JwYy5yZWZsZWN0aW9uLnYxLkZpbGVEZXNjcmlwdG9yUmVzcG9uc2VIAFIWZmlsZURlc2NyaXB0b3JSZXNwb25zZRJyCh5hbGxfZXh0ZW5zaW9uX251bWJlcnNfcmVzcG9uc2UYBSABKAsyKy5ncnBjLnJlZmxlY3Rpb24udjEuRXh0ZW5zaW9uTnVtYmVyUmVzcG9uc2VIAFIbYWxsRXh0ZW5zaW9uTnVtYmVyc1Jlc3BvbnNlEl8KFmxpc3Rfc2VydmljZXNfcmVzcG9uc2UYBiABKAsyJy5ncnBjLnJlZmxlY3Rpb24udjEuTGlzdFNlcnZpY2VSZXNwb25zZUgAUhRsaXN0U2VydmljZXNSZXNwb25zZRJKCg5lcnJvcl9yZXNwb25zZRgHIAEoCzIhLmdycGMucmVmbGVjdGlvbi52MS5FcnJvclJlc3BvbnNlSABSDWVycm9yUmVzcG9uc2VCEgoQbWVzc2FnZV9yZXNwb25zZSJMChZGaWxlRGVzY3JpcHRvclJlc3BvbnNlEjIKFWZpbGVfZGVzY3JpcHRvcl9wcm90bxgBIAMoDFITZmlsZURlc2NyaXB0b3JQcm90byJqChdFeHRlbnNpb25OdW1iZXJSZXNwb25zZRIkCg5iYXNlX3R5cGVfbmFtZRgBIAEoCVIMYmFzZVR5cGVOYW1lEikKEGV4dGVuc2lvbl9udW1iZXIYAiADKAVSD2V4dGVuc2lvbk51bWJlciJUChNMaXN0U2VydmljZVJlc3BvbnNlEj0KB3NlcnZpY2UYASADKAsyIy5ncnBjLnJlZmxlY3Rpb24udjEuU2VydmljZVJlc3BvbnNlUgdzZXJ2aWNlIiUKD1NlcnZpY2VSZXNwb25zZRISCgRuYW1lGAEgASgJUgRuYW1lIlMKDUVycm9yUmVzcG9uc2USHQoKZXJyb3JfY29kZRgBIAEoBVIJZXJyb3JDb2RlEiMKDWVycm9yX21lc3NhZ2UYAiABKAlSDGVycm9yTWVzc2FnZTKJAQoQU2VydmVyUmVmbGVjdGlvbhJ1ChRTZXJ2ZXJSZWZsZWN0aW9uSW5mbxIrLmdycGMucmVmbGVjdGlvbi52MS5TZXJ2ZXJSZWZsZWN0aW9uUmVxdWVzdBosLmdycGMucmVmbGVjdGlvbi52MS5TZXJ2ZXJSZWZsZWN0aW9uUmVzcG9uc2UoATABYgZwcm90bzM="
  },
  {
    "name": "grpc/reflection/v1alpha/reflection.proto",
    "imports": [],
    "services": [
      "grpc.reflection.v1alpha.ServerReflection"
    ],
    "symbols": [
      "grpc.reflection.v1alpha.ServerReflection",
      "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo",
      "grpc.reflection.v1alpha.ServerReflectionRequest",
      "grpc.reflection.v1alpha.ExtensionRequest",
      "grpc.reflection.v1alpha.ServerReflectionResponse",
      "grpc.reflection.v1alpha.FileDescriptorResponse",
      "grpc.reflection.v1alpha.ExtensionNumberResponse",
      "grpc.reflection.v1alpha.ListServiceResponse",
      "grpc.reflection.v1alpha.ServiceResponse",
      "grpc.reflection.v1alpha.ErrorResponse"
    ],
    "base64": "CihncnBjL3JlZmxlY3Rpb24vdjFhbHBoYS9yZWZsZWN0aW9uLnByb3RvEhdncnBjLnJlZmxlY3Rpb24udjFhbHBoYSL4AgoXU2VydmVyUmVmbGVjdGlvblJlcXVlc3QSEgoEaG9zdBgBIAEoCVIEaG9zdBIqChBmaWxlX2J5X2ZpbGVuYW1lGAMgASgJSABSDmZpbGVCeUZpbGVuYW1lEjYKFmZpbGVfY29udGFpbmluZ19zeW1ib2wYBCABKAlIAFIUZmlsZUNvbnRhaW5pbmdTeW1ib2wSZwoZZmlsZV9jb250YWluaW5nX2V4dGVuc2lvbhgFIAEoCzIpLmdycGMucmVmbGVjdGlvbi52MWFscGhhLkV4dGVuc2lvblJlcXVlc3RIAFIXZmlsZUNvbnRhaW5pbmdFeHRlbnNpb24SQgodYWxsX2V4dGVuc2lvbl9udW1iZXJzX29mX3R5cGUYBiABKAlIAFIZYWxsRXh0ZW5zaW9uTnVtYmVyc09mVHlwZRIlCg1saXN0X3NlcnZpY2VzGAcgASgJSABSDGxpc3RTZXJ2aWNlc0IRCg9tZXNzYWdlX3JlcXVlc3QiZgoQRXh0ZW5zaW9uUmVxdWVzdBInCg9jb250YWluaW5nX3R5cGUYASABKAlSDmNvbnRhaW5pbmdUeXBlEikKEGV4dGVuc2lvbl9udW1iZXIYAiABKAVSD2V4dGVuc2lvbk51bWJlciLHBAoYU2VydmVyUmVmbGVjdGlvblJlc3BvbnNlEh0KCnZhbGlkX2hvc3QYASABKAlSCXZhbGlkSG9zdBJbChBvcmlnaW5hbF9yZXF1ZXN0GAIgASgLMjAuZ3JwYy5yZWZsZWN0aW9uLnYxYWxwaGEuU2VydmVyUmVmbGVjdGlvblJlcXVlc3RSD29yaWdpbmFsUmVxdWVzdBJrChhmaWxlX2Rlc2NyaXB0b3JfcmVzcG9uc2UYBCABKAsyLy5ncnBjLnJlZmxlY3Rpb24udjFhbHBoYS5GaWxlRGVzY3JpcHRvclJlc3BvbnNlSABSFmZpbGVEZXNjcmlwdG9yUmVzcG9uc2USdwoeYWxsX2V4dGVuc2lvbl9udW1iZXJzX3Jlc3BvbnNlGAUgASgLMjAuZ3JwYy5yZWZsZWN0aW9uLnYxYWxwaGEuRXh0ZW5zaW9uTnVtYmVyUmVzcG9uc2VIAFIbYWxsRXh0ZW5zaW9uTnVtYmVyc1Jlc3BvbnNlEmQKFmxpc3Rfc2VydmljZXNfcmVzcG9uc2UYBiABKAsyLC5ncnBjLnJlZmxlY3Rpb24udjFhbHBoYS5MaXN0U2VydmljZVJlc3BvbnNlSABSFGxpc3RTZXJ2aWNlc1Jlc3BvbnNlEk8KDmVycm9yX3Jlc3BvbnNlGAcgASgLMiYuZ3JwYy5yZWZsZWN0aW9uLnYxYWxwaGEuRXJyb3JSZXNwb25zZUgAUg1lcnJvclJlc3BvbnNlQhIKEG1lc3NhZ2VfcmVzcG9uc2UiTAoWRmlsZURlc2NyaXB0b3JSZXNwb25zZRIyChVmaWxlX2Rlc2NyaXB0b3JfcHJvdG8YASADKAxSE2ZpbGVEZXNjcmlwdG9yUHJvdG8iagoXRXh0ZW5zaW9uTnVtYmVyUmVzcG9uc2USJAoOYmFzZV90eXBlX25hbWUYASABKAlSDGJhc2VUeXBlTmFtZRIpChBleHRlbnNpb25fbnVtYmVyGAIgAygFUg9leHRlbnNpb25OdW1iZXIiWQoTTGlzdFNlcnZpY2VSZXNwb25zZRJCCgdzZXJ2aWNlGAEgAygLMiguZ3JwYy5yZWZsZWN0aW9uLnYxYWxwaGEuU2VydmljZVJlc3BvbnNlUgdzZXJ2aWNlIiUKD1NlcnZpY2VSZXNwb25zZRISCgRuYW1lGAEgASgJUgRuYW1lIlMKDUVycm9yUmVzcG9uc2USHQoKZXJyb3JfY29kZRgBIAEoBVIJZXJyb3JDb2RlEiMKDWVycm9yX21lc3NhZ2UYAiABKAlSDGVycm9yTWVzc2FnZTKTAQoQU2VydmVyUmVmbGVjdGlvbhJ/ChRTZXJ2ZXJSZWZsZWN0aW9uSW5mbxIwLmdycGMucmVmbGVjdGlvbi52MWFscGhhLlNlcnZlclJlZmxlY3Rpb25SZXF1ZXN0GjEuZ3JwYy5yZWZsZWN0aW9uLnYxYWxwaGEuU2VydmVyUmVmbGVjdGlvblJlc3BvbnNlKAEwAWIGcHJvdG8z"
  },
  {
    "name": "google/protobuf/struct.proto",
    "imports": [],
    "services": [],
    "symbols": [
      "google.protobuf.NullValue",
      "google.protobuf.Struct",
      "google.protobuf.Struct.FieldsEntry",
      "google.protobuf.Value",
      "google.protobuf.ListValue"
    ],
    "base64": "Chxnb29nbGUvcHJvdG9idWYvc3RydWN0LnByb3RvEg9nb29nbGUucHJvdG9idWYimAEKBlN0cnVjdBI7CgZmaWVsZHMYASADKAsyIy5nb29nbGUucHJvdG9idWYuU3RydWN0LkZpZWxkc0VudHJ5UgZmaWVsZHMaUQoLRmllbGRzRW50cnkSEAoDa2V5GAEgASgJUgNrZXkSLAoFdmFsdWUYAiABKAsyFi5nb29nbGUucHJvdG9idWYuVmFsdWVSBXZhbHVlOgI4ASKyAgoFVmFsdWUSOwoKbnVsbF92YWx1ZRgBIAEoDjIaLmdvb2dsZS5wcm90b2J1Zi5OdWxsVmFsdWVIAFIJbnVsbFZhbHVlEiMKDG51bWJlcl92YWx1ZRgCIAEoAUgAUgtudW1iZXJWYWx1ZRIjCgxzdHJpbmdfdmFsdWUYAyABKAlIAFILc3RyaW5nVmFsdWUSHwoKYm9vbF92YWx1ZRgEIAEoCEgAUglib29sVmFsdWUSPAoMc3RydWN0X3ZhbHVlGAUgASgLMhcuZ29vZ2xlLnByb3RvYnVmLlN0cnVjdEgAUgtzdHJ1Y3RWYWx1ZRI7CgpsaXN0X3ZhbHVlGAYgASgLMhouZ29vZ2xlLnByb3RvYnVmLkxpc3RWYWx1ZUgAUglsaXN0VmFsdWVCBgoEa2luZCI7CglMaXN0VmFsdWUSLgoGdmFsdWVzGAEgAygLMhYuZ29vZ2xlLnByb3RvYnVmLlZhbHVlUgZ2YWx1ZXMqGwoJTnVsbFZhbHVlEg4KCk5VTExfVkFMVUUQAEJ/ChNjb20uZ29vZ2xlLnByb3RvYnVmQgtTdHJ1Y3RQcm90b1ABWi9nb29nbGUuZ29sYW5nLm9yZy9wcm90b2J1Zi90eXBlcy9rbm93bi9zdHJ1Y3RwYvgBAaICA0dQQqoCHkdvb2dsZS5Qcm90b2J1Zi5XZWxsS25vd25UeXBlc2IGcHJvdG8z"
  },
  {
    "name": "workload.proto",
    "imports": [
      "google/protobuf/struct.proto"
    ],
    "services": [
      "SpiffeWorkloadAPI"
    ],
    "symbols": [
      "SpiffeWorkloadAPI",
      "SpiffeWorkloadAPI.FetchX509SVID",
      "SpiffeWorkloadAPI.FetchX509Bundles",
      "SpiffeWorkloadAPI.FetchJWTSVID",
      "SpiffeWorkloadAPI.FetchJWTBundles",
      "SpiffeWorkloadAPI.ValidateJWTSVID",
      "X509SVIDRequest",
      "X509BundlesRequest",
      "JWTBundlesRequest",
      "X509SVIDResponse",
      "X509SVIDResponse.FederatedBundlesEntry",
      "X509SVID",
      "X509BundlesResponse",
      "X509BundlesResponse.BundlesEntry",
      "JWTSVIDRequest",
      "JWTSVIDResponse",
      "JWTSVID",
      "JWTBundlesResponse",
      "JWTBundlesResponse.BundlesEntry",
      "ValidateJWTSVIDRequest",
      "ValidateJWTSVIDResponse"
    ],
    "base64": "Cg53b3JrbG9hZC5wcm90bxocZ29vZ2xlL3Byb3RvYnVmL3N0cnVjdC5wcm90byIRCg9YNTA5U1ZJRFJlcXVlc3QiFAoSWDUwOUJ1bmRsZXNSZXF1ZXN0IhMKEUpXVEJ1bmRsZXNSZXF1ZXN0IuABChBYNTA5U1ZJRFJlc3BvbnNlEh8KBXN2aWRzGAEgAygLMgkuWDUwOVNWSURSBXN2aWRzEhAKA2NybBgCIAMoDFIDY3JsElQKEWZlZGVyYXRlZF9idW5kbGVzGAMgAygLMicuWDUwOVNWSURSZXNwb25zZS5GZWRlcmF0ZWRCdW5kbGVzRW50cnlSEGZlZGVyYXRlZEJ1bmRsZXMaQwoVRmVkZXJhdGVkQnVuZGxlc0VudHJ5EhAKA2tleRgBIAEoCVIDa2V5EhQKBXZhbHVlGAIgASgMUgV2YWx1ZToCOAEilAEKCFg1MDlTVklEEhsKCXNwaWZmZV9pZBgBIAEoCVIIc3BpZmZlSWQSGwoJeDUwOV9zdmlkGAIgASgMUgh4NTA5U3ZpZBIiCg14NTA5X3N2aWRfa2V5GAMgASgMUgt4NTA5U3ZpZEtleRIWCgZidW5kbGUYBCABKAxSBmJ1bmRsZRISCgRoaW50GAUgASgJUgRoaW50IqABChNYNTA5QnVuZGxlc1Jlc3BvbnNlEhAKA2NybBgBIAMoDFIDY3JsEjsKB2J1bmRsZXMYAiADKAsyIS5YNTA5QnVuZGxlc1Jlc3BvbnNlLkJ1bmRsZXNFbnRyeVIHYnVuZGxlcxo6CgxCdW5kbGVzRW50cnkSEAoDa2V5GAEgASgJUgNrZXkSFAoFdmFsdWUYAiABKAxSBXZhbHVlOgI4ASJJCg5KV1RTVklEUmVxdWVzdBIaCghhdWRpZW5jZRgBIAMoCVIIYXVkaWVuY2USGwoJc3BpZmZlX2lkGAIgASgJUghzcGlmZmVJZCIxCg9KV1RTVklEUmVzcG9uc2USHgoFc3ZpZHMYASADKAsyCC5KV1RTVklEUgVzdmlkcyJOCgdKV1RTVklEEhsKCXNwaWZmZV9pZBgBIAEoCVIIc3BpZmZlSWQSEgoEc3ZpZBgCIAEoCVIEc3ZpZBISCgRoaW50GAMgASgJUgRoaW50IowBChJKV1RCdW5kbGVzUmVzcG9uc2USOgoHYnVuZGxlcxgBIAMoCzIgLkpXVEJ1bmRsZXNSZXNwb25zZS5CdW5kbGVzRW50cnlSB2J1bmRsZXMaOgoMQnVuZGxlc0VudHJ5EhAKA2tleRgBIAEoCVIDa2V5EhQKBXZhbHVlGAIgASgMUgV2YWx1ZToCOAEiSAoWVmFsaWRhdGVKV1RTVklEUmVxdWVzdBIaCghhdWRpZW5jZRgBIAEoCVIIYXVkaWVuY2USEgoEc3ZpZBgCIAEoCVIEc3ZpZCJnChdWYWxpZGF0ZUpXVFNWSURSZXNwb25zZRIbCglzcGlmZmVfaWQYASABKAlSCHNwaWZmZUlkEi8KBmNsYWltcxgCIAEoCzIXLmdvb2dsZS5wcm90b2J1Zi5TdHJ1Y3RSBmNsYWltczLDAgoRU3BpZmZlV29ya2xvYWRBUEkSNgoNRmV0Y2hYNTA5U1ZJRBIQLlg1MDlTVklEUmVxdWVzdBoRLlg1MDlTVklEUmVzcG9uc2UwARI/ChBGZXRjaFg1MDlCdW5kbGVzEhMuWDUwOUJ1bmRsZXNSZXF1ZXN0GhQuWDUwOUJ1bmRsZXNSZXNwb25zZTABEjEKDEZldGNoSldUU1ZJRBIPLkpXVFNWSURSZXF1ZXN0GhAuSldUU1ZJRFJlc3BvbnNlEjwKD0ZldGNoSldUQnVuZGxlcxISLkpXVEJ1bmRsZXNSZXF1ZXN0GhMuSldUQnVuZGxlc1Jlc3BvbnNlMAESRAoPVmFsaWRhdGVKV1RTVklEEhcuVmFsaWRhdGVKV1RTVklEUmVxdWVzdBoYLlZhbGlkYXRlSldUU1ZJRFJlc3BvbnNlYgZwcm90bzM="
  }
];
