import { resolve } from 'node:path';
import { Client, type ClientDuplexStream, credentials, type ServiceError } from '@grpc/grpc-js';
import type { TypedExtensionConfig } from '../../sds/proto/generated/envoy/config/core/v3/extension';
import { Secret } from '../../sds/proto/generated/envoy/extensions/transport_sockets/tls/v3/secret';
import { SPIFFECertValidatorConfig } from '../../sds/proto/generated/envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config';
import {
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
  DiscoveryRequest,
  DiscoveryResponse,
} from '../../sds/proto/generated/envoy/service/discovery/v3/discovery';

export const SDS_SERVICE = '/envoy.service.secret.v3.SecretDiscoveryService';
export const SECRET_TYPE = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';

const PATIENCE_MS = 10_000;

/** One secret as a proxy reads it. */
export interface ReceivedSecret {
  readonly name: string;
  readonly chainPem: string | undefined;
  readonly keyPem: string | undefined;
  readonly rootsPem: string | undefined;
  readonly crlPem: string | undefined;
  readonly onlyVerifyLeafCertCrl: boolean | undefined;
  /** PEM by trust domain, of a context with Envoy's SPIFFE validator. */
  readonly trustDomains: ReadonlyMap<string, string> | undefined;
}

export interface Received {
  readonly version: string;
  readonly nonce: string;
  readonly secrets: readonly ReceivedSecret[];
  /** Names of `secrets`, in order. */
  readonly names: readonly string[];
  /** Delta only. */
  readonly removed: readonly string[];
  /** Delta only: name to version. */
  readonly versions: ReadonlyMap<string, string>;
}

export interface RequestOptions {
  /** Default: the nonce of the last response, empty before it. */
  readonly nonce?: string;
  readonly version?: string;
  readonly error?: string;
  readonly node?: string | undefined;
  readonly typeUrl?: string;
}

export interface DeltaOptions extends RequestOptions {
  readonly subscribe?: readonly string[];
  readonly unsubscribe?: readonly string[];
  readonly versions?: Readonly<Record<string, string>>;
}

/** What both kinds of stream can do. */
interface ClientStream {
  /** The next response, past or future, that was not taken yet. */
  next(): Promise<Received>;
  /** Resolves when nothing has come for that long; fails with what came. */
  silence(ms?: number): Promise<void>;
  /** How the server ended the stream. */
  readonly ended: Promise<{ readonly code: number; readonly details: string }>;
  /** Responses not yet taken. */
  readonly waiting: number;
  cancel(): void;
  /** Half-closes: no more requests. */
  end(): void;
}

export interface SotwClientStream extends ClientStream {
  /** Asks for exactly these names from now on. */
  request(names: readonly string[], options?: RequestOptions): void;
  /** Accepts the last response taken. */
  ack(): void;
  /** Refuses the last response taken, with the proxy's words. */
  nack(message: string, names?: readonly string[]): void;
  /** Sends any bytes as one message. */
  send(bytes: Uint8Array): void;
}

export interface DeltaClientStream extends ClientStream {
  request(options: DeltaOptions): void;
  ack(): void;
  nack(message: string): void;
}

/** A well-behaved SDS client with a connection of its own. */
export interface SdsClient {
  openStream(): SotwClientStream;
  openDelta(): DeltaClientStream;
  fetch(
    names: readonly string[],
    options?: { readonly deadlineMs?: number; readonly typeUrl?: string },
  ): Promise<Received>;
  /** Subscribes to a name, acknowledges it and hangs up: what every case ends with. */
  get(name: string): Promise<ReceivedSecret>;
  close(): void;
}

/** Connects when first used. */
export function createSdsClient(socketPath: string): SdsClient {
  const client = new Client(`unix:${resolve(socketPath)}`, credentials.createInsecure(), {
    // A channel of its own: grpc-js shares connections between clients of one address.
    'grpc.use_local_subchannel_pool': 1,
    'grpc.initial_reconnect_backoff_ms': 50,
    'grpc.max_reconnect_backoff_ms': 200,
  });
  const open: ClientStream[] = [];
  const opened = <T extends ClientStream>(stream: T): T => {
    open.push(stream);
    return stream;
  };
  return {
    openStream: () => opened(sotwStream(client)),
    openDelta: () => opened(deltaStream(client)),
    fetch: (names, options = {}) => fetch(client, names, options),
    get: async (name) => {
      const stream = sotwStream(client);
      stream.request([name]);
      const received = await stream.next();
      stream.ack();
      stream.cancel();
      return received.secrets[0]!;
    },
    close: () => {
      // A closed client alone lets its calls go on.
      for (const stream of open) stream.cancel();
      client.close();
    },
  };
}

/** A good client that comes, gets `default`, and goes. */
export async function getSecret(socketPath: string, name = 'default'): Promise<ReceivedSecret> {
  const client = createSdsClient(socketPath);
  try {
    return await client.get(name);
  } finally {
    client.close();
  }
}

function sotwStream(client: Client): SotwClientStream {
  const call = client.makeBidiStreamRequest<Uint8Array, Received>(
    `${SDS_SERVICE}/StreamSecrets`,
    toBuffer,
    readSotw,
  );
  let names: readonly string[] = [];
  let first = true;
  const inbox = createInbox(call);
  const stream: SotwClientStream = Object.assign(inbox.stream, {
    request: (wanted: readonly string[], options: RequestOptions = {}) => {
      names = wanted;
      call.write(
        sotwRequest(wanted, {
          node: first ? 'test' : undefined,
          nonce: inbox.last()?.nonce ?? '',
          version: inbox.last()?.version ?? '',
          ...options,
        }),
      );
      first = false;
    },
    ack: () => stream.request(names),
    nack: (message: string, wanted = names) => stream.request(wanted, { error: message }),
    send: (bytes: Uint8Array) => {
      call.write(bytes);
    },
  });
  return stream;
}

function deltaStream(client: Client): DeltaClientStream {
  const call = client.makeBidiStreamRequest<Uint8Array, Received>(
    `${SDS_SERVICE}/DeltaSecrets`,
    toBuffer,
    readDelta,
  );
  let first = true;
  const inbox = createInbox(call);
  const stream: DeltaClientStream = Object.assign(inbox.stream, {
    request: (options: DeltaOptions) => {
      call.write(deltaRequest({ node: first ? 'test' : undefined, ...options }));
      first = false;
    },
    ack: () => stream.request({ nonce: inbox.last()!.nonce }),
    nack: (message: string) => stream.request({ nonce: inbox.last()!.nonce, error: message }),
  });
  return stream;
}

/** An encoded DiscoveryRequest. */
export function sotwRequest(names: readonly string[], options: RequestOptions = {}): Uint8Array {
  return DiscoveryRequest.encode({
    versionInfo: options.version ?? '',
    node: options.node === undefined ? undefined : { id: options.node, cluster: '' },
    resourceNames: names,
    typeUrl: options.typeUrl ?? SECRET_TYPE,
    responseNonce: options.nonce ?? '',
    errorDetail: options.error === undefined ? undefined : { code: 13, message: options.error },
  }).finish();
}

/** An encoded DeltaDiscoveryRequest. */
export function deltaRequest(options: DeltaOptions): Uint8Array {
  return DeltaDiscoveryRequest.encode({
    node: options.node === undefined ? undefined : { id: options.node, cluster: '' },
    typeUrl: options.typeUrl ?? SECRET_TYPE,
    resourceNamesSubscribe: options.subscribe ?? [],
    resourceNamesUnsubscribe: options.unsubscribe ?? [],
    initialResourceVersions: new Map(Object.entries(options.versions ?? {})),
    responseNonce: options.nonce ?? '',
    errorDetail: options.error === undefined ? undefined : { code: 13, message: options.error },
  }).finish();
}

function createInbox(call: ClientDuplexStream<Uint8Array, Received>) {
  const received: Received[] = [];
  const takers: ((response: Received) => void)[] = [];
  let last: Received | undefined;
  let status: { code: number; details: string } | undefined;
  const ended = new Promise<{ code: number; details: string }>((done) => {
    call.on('status', ({ code, details }) => {
      status = { code, details };
      done(status);
    });
  });
  call.on('error', () => undefined);
  call.on('data', (response: Received) => {
    const taker = takers.shift();
    if (taker) taker(response);
    else received.push(response);
  });
  const take = (response: Received) => {
    last = response;
    return response;
  };
  const stream: ClientStream = {
    next: async () => {
      const ready = received.shift();
      if (ready) return take(ready);
      const coming = new Promise<Received>((done) => takers.push(done));
      const gone = ended.then(({ code, details }) => {
        throw new Error(`the stream ended with ${code} ${details} before a response`);
      });
      return take(await within(Promise.race([coming, gone]), 'a response'));
    },
    silence: async (ms = 100) => {
      await new Promise((done) => setTimeout(done, ms));
      if (received.length > 0)
        throw new Error(`unexpected response with ${received[0]!.names.join(', ')}`);
      if (status) throw new Error(`the stream ended with ${status.code} ${status.details}`);
    },
    ended,
    get waiting() {
      return received.length;
    },
    cancel: () => call.cancel(),
    end: () => call.end(),
  };
  return { stream, last: () => last };
}

function fetch(
  client: Client,
  names: readonly string[],
  options: { deadlineMs?: number; typeUrl?: string },
): Promise<Received> {
  const deadline = Date.now() + (options.deadlineMs ?? PATIENCE_MS);
  return new Promise((done, failed) => {
    client.makeUnaryRequest(
      `${SDS_SERVICE}/FetchSecrets`,
      toBuffer,
      readSotw,
      sotwRequest(names, {
        node: 'test',
        ...(options.typeUrl === undefined ? {} : { typeUrl: options.typeUrl }),
      }),
      { deadline },
      (error: ServiceError | null, response?: Received) =>
        error ? failed(error) : done(response!),
    );
  });
}

function readSotw(bytes: Buffer): Received {
  const { versionInfo, nonce, resources, typeUrl } = DiscoveryResponse.decode(bytes);
  if (typeUrl !== SECRET_TYPE) throw new Error(`response of type ${typeUrl}`);
  const secrets = resources.map(({ typeUrl: type, value }) => readSecret(type, value));
  return {
    version: versionInfo,
    nonce,
    secrets,
    names: secrets.map(({ name }) => name),
    removed: [],
    versions: new Map(),
  };
}

function readDelta(bytes: Buffer): Received {
  const { nonce, resources, removedResources, systemVersionInfo } =
    DeltaDiscoveryResponse.decode(bytes);
  const secrets = resources.map(({ resource }) => readSecret(resource!.typeUrl, resource!.value));
  const versions = new Map(resources.map(({ name, version }) => [name, version]));
  return {
    version: systemVersionInfo,
    nonce,
    secrets,
    names: resources.map(({ name }) => name),
    removed: removedResources,
    versions,
  };
}

function readSecret(typeUrl: string, bytes: Uint8Array): ReceivedSecret {
  if (typeUrl !== SECRET_TYPE) throw new Error(`resource of type ${typeUrl}`);
  const { name, type } = Secret.decode(bytes);
  const certificate = type?.$case === 'tlsCertificate' ? type.value : undefined;
  const context = type?.$case === 'validationContext' ? type.value : undefined;
  return {
    name,
    chainPem: inline(certificate?.certificateChain),
    keyPem: inline(certificate?.privateKey),
    rootsPem: inline(context?.trustedCa),
    crlPem: inline(context?.crl),
    onlyVerifyLeafCertCrl: context?.onlyVerifyLeafCertCrl,
    trustDomains: spiffeDomains(context?.customValidatorConfig),
  };
}

function spiffeDomains(
  validator: TypedExtensionConfig | undefined,
): ReadonlyMap<string, string> | undefined {
  if (validator === undefined) return undefined;
  if (validator.name !== 'envoy.tls.cert_validator.spiffe')
    throw new Error(`validator ${validator.name}`);
  const { trustDomains } = SPIFFECertValidatorConfig.decode(validator.typedConfig!.value);
  return new Map(trustDomains.map(({ name, trustBundle }) => [name, inline(trustBundle)!]));
}

function inline(
  source: { specifier?: { $case: string; value: unknown } | undefined } | undefined,
): string | undefined {
  return source?.specifier?.$case === 'inlineBytes'
    ? Buffer.from(source.specifier.value as Uint8Array).toString()
    : undefined;
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

function within<T>(work: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout;
  const late = new Promise<never>((_, failed) => {
    timer = setTimeout(
      () => failed(new Error(`${what} did not come within ${PATIENCE_MS / 1_000} s`)),
      PATIENCE_MS,
    );
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}
