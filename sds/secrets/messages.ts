import { BinaryReader } from '@bufbuild/protobuf/wire';
import { type AgentError, invalid } from '../../agent/base/errors';
import { LIMITS } from '../grpc/limits';
import {
  DeltaDiscoveryRequest,
  DiscoveryRequest,
} from '../proto/generated/envoy/service/discovery/v3/discovery';

/** The one type of this service. A request may leave it out. */
export const SECRET_TYPE_URL =
  'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';

/** What a state-of-the-world request says. Its version is not read: content hashes and nonces tell all. */
export interface SotwRequest {
  /** Without duplicates, in the order of the request. */
  readonly names: readonly string[];
  /** Empty in a first request. */
  readonly nonce: string;
  /** The client's words where it refuses the response of that nonce. */
  readonly error: string | undefined;
  readonly node: string;
}

export interface DeltaRequest {
  readonly subscribe: readonly string[];
  readonly unsubscribe: readonly string[];
  /** What the client has from an earlier stream: name to version. */
  readonly versions: ReadonlyMap<string, string>;
  readonly nonce: string;
  readonly error: string | undefined;
  readonly node: string;
}

/** Foreign text is cut before it is kept, shown or logged. */
const MAX_WORDS = 1_000;
const MAX_NODE = 200;

/**
 * Reads a DiscoveryRequest. Its size is bounded by the transport (`LIMITS.requestBytes`).
 *
 * @throws AgentError ERR_PARSE with field (`discovery request`, `type_url`, `resource_names`) and rule.
 */
export function parseSotwRequest(bytes: Uint8Array): SotwRequest {
  const message = decodeMessage('discovery request', bytes, DiscoveryRequest);
  checkType(message.typeUrl);
  return {
    names: readNames(message.resourceNames, 'resource_names'),
    nonce: message.responseNonce,
    error: message.errorDetail && errorWords(message.errorDetail),
    node: (message.node?.id ?? '').slice(0, MAX_NODE),
  };
}

/**
 * Reads a DeltaDiscoveryRequest.
 *
 * @throws AgentError ERR_PARSE, as `parseSotwRequest`.
 */
export function parseDeltaRequest(bytes: Uint8Array): DeltaRequest {
  const message = decodeMessage('delta discovery request', bytes, DeltaDiscoveryRequest);
  checkType(message.typeUrl);
  readNames([...message.initialResourceVersions.keys()], 'initial_resource_versions');
  return {
    subscribe: readNames(message.resourceNamesSubscribe, 'resource_names_subscribe'),
    unsubscribe: readNames(message.resourceNamesUnsubscribe, 'resource_names_unsubscribe'),
    versions: message.initialResourceVersions,
    nonce: message.responseNonce,
    error: message.errorDetail && errorWords(message.errorDetail),
    node: (message.node?.id ?? '').slice(0, MAX_NODE),
  };
}

/**
 * Reads a message.
 *
 * @throws AgentError ERR_PARSE, with `field`.
 */
export function decodeMessage<T>(
  field: string,
  bytes: Uint8Array,
  codec: { decode(input: BinaryReader): T },
): T {
  const reader = new BinaryReader(bytes);
  let message: T;
  try {
    message = codec.decode(reader);
  } catch (caught) {
    throw invalid('ERR_PARSE', field, 'must be a well-formed protobuf message', { cause: caught });
  }
  // The generated codec stops at an end-group tag or a zero, which nothing may contain at this level.
  if (reader.pos !== reader.len)
    throw invalid('ERR_PARSE', field, 'must not contain a stray end of group');
  return message;
}

function checkType(typeUrl: string): void {
  if (typeUrl !== '' && typeUrl !== SECRET_TYPE_URL)
    throw invalid('ERR_PARSE', 'type_url', `must be ${SECRET_TYPE_URL}`);
}

function readNames(names: readonly string[], field: string): readonly string[] {
  if (names.length > LIMITS.namesPerStream) throw tooMany(field);
  for (const name of names) {
    if (Buffer.byteLength(name) > LIMITS.nameBytes) {
      throw invalid(
        'ERR_PARSE',
        field,
        `must not hold a name of more than ${LIMITS.nameBytes} bytes`,
      );
    }
  }
  return [...new Set(names)];
}

/** The error for more names than one stream may watch. */
export function tooMany(field: string): AgentError {
  return invalid('ERR_PARSE', field, `must not be more than ${LIMITS.namesPerStream} names`);
}

function errorWords(status: { readonly code: number; readonly message: string }): string {
  return status.message === '' ? `code ${status.code}` : status.message.slice(0, MAX_WORDS);
}
