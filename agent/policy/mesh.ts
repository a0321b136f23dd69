import type { JsonObject } from './resources/resource';

/** MeshConfig as far as it has an effect here. */
export interface Mesh {
  readonly trustDomain: string;
  readonly trustDomainAliases: readonly string[];
  readonly rootNamespace: string;
  readonly extensionProviders: readonly JsonObject[];
  readonly pathNormalization: PathNormalization;
  readonly minTls: 'TLSv1_2' | 'TLSv1_3';
  /** Those of TLS 1.2 that mutual TLS offers; undefined for Istio's six. */
  readonly cipherSuites: readonly string[] | undefined;
  /** Trust domains of `caCertificates`, whose peers are taken too. */
  readonly foreignTrustDomains: readonly string[];
}

export type PathNormalization =
  | 'DEFAULT'
  | 'NONE'
  | 'BASE'
  | 'MERGE_SLASHES'
  | 'DECODE_AND_MERGE_SLASHES';
