/** Plain JSON as proto3 JSON has it. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json;
}

/** Where something was written: the file as it was named or found, and the line, from 1. */
export interface Source {
  readonly file: string;
  readonly line: number;
}

/** A field by its path in the document: `['spec', 'rules', 0, 'to']`. */
export type FieldPath = readonly (string | number)[];

export type ResourceKind =
  | 'AuthorizationPolicy'
  | 'DestinationRule'
  | 'PeerAuthentication'
  | 'RequestAuthentication'
  | 'ServiceEntry'
  | 'Sidecar'
  | 'WorkloadEntry';

/** One Istio resource whose fields are known and of their types. */
export interface Resource {
  readonly kind: ResourceKind;
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  /** `metadata.creationTimestamp`, epoch milliseconds; undefined in most files. */
  readonly createdAt: number | undefined;
  readonly spec: JsonObject;
  readonly source: Source;
  /** The line of a field, or of the nearest field above it that has one. */
  readonly at: (path: FieldPath) => Source;
}
