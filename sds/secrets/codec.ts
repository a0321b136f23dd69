import { compact, field, type Pieces } from '../grpc/pieces';
import {
  DeltaDiscoveryResponse,
  DiscoveryResponse,
  Resource,
} from '../proto/generated/envoy/service/discovery/v3/discovery';
import { Any } from '../proto/generated/google/protobuf/any';
import { SECRET_TYPE_URL } from './messages';
import { combinedVersion, type SecretResource } from './secret-resource';
import type { Response } from './subscription';

/** Of both kinds of response; and of Resource, in the delta kind. */
const RESOURCES = 2;
const RESOURCE = 2;
const ANY_VALUE = 2;

// Responses differ by what is beside their resources: each of those is encoded once for all streams.
const sotwResources = new WeakMap<SecretResource, Pieces>();
const deltaResources = new WeakMap<SecretResource, Pieces>();

/** An encoded DiscoveryResponse. */
export function encodeSotw({ resources, nonce }: Response): Pieces {
  const head = DiscoveryResponse.encode({
    versionInfo: combinedVersion(resources),
    resources: [],
    typeUrl: SECRET_TYPE_URL,
    nonce,
  });
  return [head.finish(), ...resources.flatMap((each) => cached(sotwResources, each, sotwResource))];
}

/** An encoded DeltaDiscoveryResponse. Each resource carries its own version. */
export function encodeDelta({ resources, removed, nonce }: Response): Pieces {
  const head = DeltaDiscoveryResponse.encode({
    systemVersionInfo: '',
    resources: [],
    typeUrl: SECRET_TYPE_URL,
    nonce,
    removedResources: removed,
  });
  return [
    head.finish(),
    ...resources.flatMap((each) => cached(deltaResources, each, deltaResource)),
  ];
}

function cached(
  encoded: WeakMap<SecretResource, Pieces>,
  resource: SecretResource,
  encode: (resource: SecretResource) => Pieces,
): Pieces {
  const known = encoded.get(resource);
  if (known) return known;
  const made = compact(encode(resource));
  encoded.set(resource, made);
  return made;
}

function sotwResource(resource: SecretResource): Pieces {
  return field(RESOURCES, packed(resource));
}

function deltaResource(resource: SecretResource): Pieces {
  const { name, version } = resource;
  const facts = Resource.encode({ name, version, resource: undefined });
  return field(RESOURCES, [facts.finish(), ...field(RESOURCE, packed(resource))]);
}

function packed({ secret }: SecretResource): Pieces {
  const type = Any.encode({ typeUrl: SECRET_TYPE_URL, value: Buffer.alloc(0) });
  return [type.finish(), ...field(ANY_VALUE, secret)];
}
