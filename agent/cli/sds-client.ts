import {
  type CertificateValidationContext,
  Secret,
} from '../../sds/proto/generated/envoy/extensions/transport_sockets/tls/v3/secret';
import { SPIFFECertValidatorConfig } from '../../sds/proto/generated/envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config';
import {
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
} from '../../sds/proto/generated/envoy/service/discovery/v3/discovery';
import { SECRET_TYPE_URL } from '../../sds/secrets/messages';
import { AgentError, errorText } from '../base/errors';

const DELTA_SECRETS = '/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets';

/** A secret as SDS gave it. */
export interface ReceivedSecret {
  readonly name: string;
  readonly version: string;
  readonly kind: 'certificate' | 'bundle';
  /** The chain, or the roots. */
  readonly certificatesPem: Uint8Array;
  /** Undefined for a bundle. */
  readonly privateKeyPem: Uint8Array | undefined;
}

export interface SdsUpdate {
  readonly secrets: readonly ReceivedSecret[];
  /** Names that this server does not serve, or no longer. */
  readonly removed: readonly string[];
}

/** As Envoy: revocation lists of a large mesh are tens of megabytes. */
const NO_LIMIT = { 'grpc.max_receive_message_length': -1 };

/**
 * Asks for secrets as an Envoy does (delta, because its answers name what is unknown), and accepts every answer.
 *
 * @throws AgentError ERR_CONTROL when the stream cannot be opened or ends, ERR_ABORTED when the signal fires.
 */
export async function* watchSecrets(
  options: { readonly socket: string; readonly names: readonly string[]; readonly node: string },
  signal: AbortSignal,
): AsyncGenerator<SdsUpdate, never> {
  const { Client, credentials } = await import('@grpc/grpc-js');
  const client = new Client(`unix:${options.socket}`, credentials.createInsecure(), NO_LIMIT);
  const call = client.makeBidiStreamRequest<Buffer, Buffer>(DELTA_SECRETS, same, same);
  const cancel = () => call.cancel();
  signal.addEventListener('abort', cancel, { once: true });
  try {
    call.write(subscription(options));
    for await (const bytes of call) {
      const response = DeltaDiscoveryResponse.decode(bytes as Buffer);
      const update = {
        secrets: response.resources.map(readResource),
        removed: response.removedResources,
      };
      call.write(encode({ responseNonce: response.nonce }));
      yield update;
    }
    throw new AgentError(
      'ERR_CONTROL',
      `SDS socket ${options.socket}: the server ended the stream`,
      { retry: 'soon' },
    );
  } catch (caught) {
    throw explain(caught, options.socket, signal);
  } finally {
    signal.removeEventListener('abort', cancel);
    call.cancel();
    client.close();
  }
}

function subscription({
  names,
  node,
}: {
  readonly names: readonly string[];
  readonly node: string;
}): Buffer {
  return encode({ node: { id: node, cluster: 'keyturn' }, resourceNamesSubscribe: names });
}

function encode(message: Partial<DeltaDiscoveryRequest>): Buffer {
  const whole = {
    node: undefined,
    typeUrl: SECRET_TYPE_URL,
    resourceNamesSubscribe: [],
    resourceNamesUnsubscribe: [],
    initialResourceVersions: new Map(),
    responseNonce: '',
    errorDetail: undefined,
    ...message,
  };
  return Buffer.from(DeltaDiscoveryRequest.encode(whole).finish());
}

function readResource(resource: DeltaDiscoveryResponse['resources'][number]): ReceivedSecret {
  const { name, type } = Secret.decode(resource.resource?.value ?? new Uint8Array());
  if (type === undefined)
    throw new AgentError('ERR_PARSE', `secret ${name}: has neither a certificate nor a bundle`);
  const { version } = resource;
  if (type.$case === 'validationContext') {
    return {
      name,
      version,
      kind: 'bundle',
      certificatesPem: rootsOf(type.value),
      privateKeyPem: undefined,
    };
  }
  const { certificateChain, privateKey } = type.value;
  return {
    name,
    version,
    kind: 'certificate',
    certificatesPem: inline(certificateChain),
    privateKeyPem: inline(privateKey),
  };
}

/** Those of all trust domains, where there are several. */
function rootsOf({ trustedCa, customValidatorConfig }: CertificateValidationContext): Uint8Array {
  const config = customValidatorConfig?.typedConfig?.value;
  if (config === undefined) return inline(trustedCa);
  const pem = Buffer.concat(
    SPIFFECertValidatorConfig.decode(config).trustDomains.map(({ trustBundle }) =>
      inline(trustBundle),
    ),
  );
  // Revocation lists stand among the roots there.
  return Buffer.from(
    pem.toString('latin1').replace(/-----BEGIN X509 CRL-----.*?-----END X509 CRL-----\n?/gs, ''),
    'latin1',
  );
}

function inline(
  source:
    | {
        readonly specifier: { readonly $case: string; readonly value: string | Buffer } | undefined;
      }
    | undefined,
): Uint8Array {
  const specifier = source?.specifier;
  return specifier?.$case === 'inlineBytes' ? (specifier.value as Buffer) : new Uint8Array();
}

function explain(caught: unknown, socket: string, signal: AbortSignal): AgentError {
  if (signal.aborted)
    return new AgentError('ERR_ABORTED', 'secret: aborted', { cause: signal.reason });
  if (caught instanceof AgentError) return caught;
  const text = errorText(caught);
  const denied = /EACCES|EPERM/.test(text);
  return new AgentError(
    'ERR_CONTROL',
    `SDS socket ${socket}: ${/ENOENT|ECONNREFUSED/.test(text) ? 'no agent listens there' : text}`,
    {
      retry: 'soon',
      cause: denied || !/ENOENT|ECONNREFUSED/.test(text) ? caught : undefined,
      hint: denied
        ? 'the socket belongs to its Envoy: run this command as that user, or start keyturn with --sds-socket-group and --sds-socket-mode 0660'
        : 'is keyturn run running? if its socket is elsewhere, name it with --sds-socket',
    },
  );
}

function same(bytes: Buffer): Buffer {
  return bytes;
}
