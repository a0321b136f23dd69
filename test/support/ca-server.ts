import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  Client,
  credentials,
  Metadata,
  type MetadataValue,
  type ServiceError,
} from '@grpc/grpc-js';
import { type Authority, openAuthority } from '../../agent/authority/authority';
import {
  type CaServer,
  type CaServerOptions,
  createCaServer,
} from '../../agent/authority/server/ca-server';
import { openFileStore } from '../../agent/authority/store/file-store';
import type { CaStore } from '../../agent/authority/store/store';
import type { Deps } from '../../agent/base/deps';
import { writePem } from '../../agent/base/pem';
import { certificatesPem } from '../../agent/identity/certificate';
import { directEngine } from '../../agent/identity/direct-engine';
import {
  generateKeyPair,
  type KeyAlgorithm,
  type KeyPair,
  privateKeyPem,
} from '../../agent/identity/keys';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { rootsToHandOut } from '../../agent/identity/valid-now';
import {
  encodeCertificateRequest,
  parseCertificateReply,
} from '../../ca-client/istio/wire/messages';
import { CREATE_CERTIFICATE_PATH } from '../../ca-client/istio/wire/service';
import { TEST_ID } from './certs';
import { tempDir } from './temp-dir';
import { type LogEvent, testDeps } from './test-deps';

const PATIENCE_MS = 15_000;
const asBytes = (bytes: Buffer): Buffer => bytes;

export interface CaWorldOptions
  extends Partial<Omit<CaServerOptions, 'authority' | 'store' | 'audit'>> {
  readonly dir?: string;
  readonly rootAlgorithm?: KeyAlgorithm;
  readonly audit?: Partial<CaServerOptions['audit']>;
  readonly deps?: Partial<Deps>;
  /** Puts something between the server and the real ones. */
  readonly wrapStore?: (store: CaStore) => CaStore;
  readonly wrapAuthority?: (authority: Authority) => Authority;
}

/** A CA server on loopback with everything that it needs, in this process. */
export interface CaWorld {
  readonly server: CaServer;
  readonly authority: Authority;
  readonly store: CaStore;
  readonly dir: string;
  readonly events: readonly LogEvent[];
  /** Lines of the audit log, parsed. */
  audit(): readonly Record<string, unknown>[];
  /** How many certificates of workloads were issued, by the audit log. */
  issued(): number;
  /** A client of its own connection, with a certificate or none. */
  client(identity?: ClientIdentity): CaTestClient;
  /** A token for one certificate of `id`. */
  joinToken(id?: string): Promise<string>;
  close(): Promise<void>;
}

export interface ClientIdentity {
  readonly key: KeyPair;
  /** DER, leaf first. */
  readonly certificatesDer: readonly Uint8Array[];
}

/** What a call gave: gRPC status 0 and a chain, or another one. */
export interface CallOutcome {
  readonly code: number;
  readonly details: string;
  readonly chain: readonly string[];
  readonly trailers: Metadata;
}

export interface CallOptions {
  readonly token?: string;
  readonly headers?: Readonly<Record<string, MetadataValue | readonly MetadataValue[]>>;
  readonly ttlSeconds?: number;
  /** Struct of the request. */
  readonly metadata?: ReadonlyMap<string, string>;
  /** The whole message instead of one around the CSR. */
  readonly raw?: Uint8Array;
  readonly path?: string;
}

export interface CaTestClient {
  /** Sends a CSR: PEM text, or DER that is put into PEM. */
  create(csr: string | Uint8Array, options?: CallOptions): Promise<CallOutcome>;
  close(): void;
}

export async function startCaWorld(options: CaWorldOptions = {}): Promise<CaWorld> {
  const {
    dir = join(tempDir(), 'ca'),
    rootAlgorithm = 'ecdsa-p256',
    deps: given,
    wrapStore,
    wrapAuthority,
    audit: auditOptions,
    ...rest
  } = options;
  const deps = testDeps(given);
  const opened = await openAuthority(
    { dir, trustDomain: 'cluster.local', rootAlgorithm, engine: directEngine },
    deps,
  );
  const authority = wrapAuthority?.(opened) ?? opened;
  const realStore = await openFileStore(dir, deps);
  const store = wrapStore?.(realStore) ?? realStore;
  const auditPath = join(tempDir(), 'audit.jsonl');
  const server = await createCaServer(
    {
      listen: '127.0.0.1:0',
      serverNames: ['localhost'],
      trustDomain: 'cluster.local',
      aliases: [],
      authenticators: ['client-certificate', 'join-token'],
      rates: { perIdentity: 0, total: 0 },
      writeAuditLine: async () => undefined,
      ...rest,
      authority,
      store,
      audit: { path: auditPath, ...auditOptions },
    },
    deps,
  ).catch(async (caught) => {
    await realStore.close();
    await opened.close();
    throw caught;
  });
  const clients = new Set<CaTestClient>();
  const audit = () =>
    existsSync(auditPath)
      ? readFileSync(auditPath, 'utf8')
          .split('\n')
          .filter(Boolean)
          .map((line) => JSON.parse(line))
      : [];
  return {
    server,
    authority,
    store,
    dir,
    events: deps.events,
    audit,
    issued: () => audit().filter(({ decision }) => decision === 'issued').length,
    client: (identity) => {
      const client = createCaTestClient(
        server.address,
        certificatesPem(rootsToHandOut(authority.trust.value, deps.clock.now()).rootsDer),
        identity,
      );
      clients.add(client);
      return client;
    },
    joinToken: async (id = TEST_ID) =>
      (await store.createJoinToken(parseSpiffeId(id), 3_600, deps.clock.now())).reveal(),
    close: async () => {
      for (const client of clients) client.close();
      await server.close();
      await realStore.close();
      await opened.close();
    },
  };
}

/** A client of the service that sends whatever it is told. */
export function createCaTestClient(
  address: string,
  rootsPem: Buffer,
  identity?: ClientIdentity,
): CaTestClient {
  const [key, chain] = identity
    ? [privateKeyPem(identity.key, 'pkcs8'), certificatesPem(identity.certificatesDer)]
    : [null, null];
  const client = new Client(address, credentials.createSsl(rootsPem, key, chain), {
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_retries': 0,
  });
  return {
    create: (csr, options = {}) =>
      new Promise((resolve) => {
        const metadata = new Metadata();
        if (options.token !== undefined) metadata.set('authorization', `Bearer ${options.token}`);
        for (const [name, values] of Object.entries(options.headers ?? {}))
          for (const value of [values].flat()) metadata.add(name, value as MetadataValue);
        const csrPem =
          typeof csr === 'string' ? csr : writePem('CERTIFICATE REQUEST', csr).toString();
        const request = Buffer.from(
          options.raw ??
            encodeCertificateRequest({
              csrPem,
              ttlSeconds: options.ttlSeconds ?? 3_600,
              metadata: options.metadata ?? new Map(),
            }),
        );
        const deadline = Date.now() + PATIENCE_MS;
        const answered = (error: ServiceError | null, reply?: Buffer) =>
          resolve(
            error
              ? { code: error.code, details: error.details, chain: [], trailers: error.metadata }
              : {
                  code: 0,
                  details: '',
                  chain: parseCertificateReply(reply!),
                  trailers: new Metadata(),
                },
          );
        client.makeUnaryRequest(
          options.path ?? CREATE_CERTIFICATE_PATH,
          asBytes,
          asBytes,
          request,
          metadata,
          { deadline },
          answered,
        );
      }),
    close: () => client.close(),
  };
}

/** A key and its CSR for an identity. */
export async function makeRequest(
  id = TEST_ID,
  algorithm: KeyAlgorithm = 'ecdsa-p256',
): Promise<{ readonly key: KeyPair; readonly csrDer: Uint8Array }> {
  const key = await generateKeyPair(algorithm);
  return { key, csrDer: await directEngine.createCsr(key, parseSpiffeId(id)) };
}

/** A workload's certificate straight from the authority. */
export async function issueIdentity(
  authority: Authority,
  id = TEST_ID,
  ttlSeconds = 3_600,
): Promise<ClientIdentity> {
  const { key, csrDer } = await makeRequest(id);
  return { key, certificatesDer: await authority.sign(csrDer, parseSpiffeId(id), ttlSeconds) };
}
