import { BinaryWriter } from '@bufbuild/protobuf/wire';
import {
  DeltaDiscoveryResponse,
  DiscoveryResponse,
} from '../proto/generated/envoy/service/discovery/v3/discovery';
import { SECRET_TYPE_URL } from './messages';
import { combinedVersion, type SecretResource } from './secret-resource';
import type { Response } from './subscription';

/** `nonce` is field 5 of both kinds of response: tag 5 << 3 | 2. */
const NONCE_TAG = 42;

// A response differs between streams by its nonce alone, and that is a field of its own: the rest is encoded once for all of them.
const sotwBodies = new WeakMap<SecretResource, Uint8Array>();
const deltaBodies = new WeakMap<SecretResource, Uint8Array>();

/** An encoded DiscoveryResponse. */
export function encodeSotw(response: Response): Buffer {
  return withNonce(cached(sotwBodies, response, sotwBody), response.nonce);
}

/** An encoded DeltaDiscoveryResponse. Each resource carries its own version. */
export function encodeDelta(response: Response): Buffer {
  return withNonce(cached(deltaBodies, response, deltaBody), response.nonce);
}

function cached(
  bodies: WeakMap<SecretResource, Uint8Array>,
  response: Response,
  make: (response: Response) => Uint8Array,
): Uint8Array {
  const [only, ...more] = response.resources;
  if (only === undefined || more.length > 0 || response.removed.length > 0) return make(response);
  const known = bodies.get(only);
  if (known) return known;
  const body = make(response);
  bodies.set(only, body);
  return body;
}

function sotwBody({ resources }: Response): Uint8Array {
  return DiscoveryResponse.encode({
    versionInfo: combinedVersion(resources),
    resources: resources.map(packed),
    typeUrl: SECRET_TYPE_URL,
    nonce: '',
  }).finish();
}

function deltaBody({ resources, removed }: Response): Uint8Array {
  return DeltaDiscoveryResponse.encode({
    systemVersionInfo: '',
    resources: resources.map((each) => ({
      version: each.version,
      resource: packed(each),
      name: each.name,
    })),
    typeUrl: SECRET_TYPE_URL,
    nonce: '',
    removedResources: removed,
  }).finish();
}

function packed(resource: SecretResource) {
  return { typeUrl: SECRET_TYPE_URL, value: resource.secretBytes as Buffer };
}

function withNonce(body: Uint8Array, nonce: string): Buffer {
  return Buffer.concat([body, new BinaryWriter().uint32(NONCE_TAG).string(nonce).finish()]);
}
