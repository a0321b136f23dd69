import { createHash } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { Deps } from '../../base/deps';
import { AgentError, invalid } from '../../base/errors';
import { type HostPort, parseHostPort } from '../../base/host-port';
import type { JwtKey } from '../../identity/spiffe-bundle';
import type { Authority } from '../authority';
import type { ServerNames } from '../certificate-specs';
import type { CrlPublisher } from '../crl';
import { serverNamesOf } from '../server-names';
import { createServingCertificate, type ServingIdentity } from '../serving-certificate';
import type { CaStore } from '../store/store';
import { type AuditOptions, openAuditLog } from './audit-log';
import type { Authenticator, AuthenticatorName, TrustDomains } from './authenticator';
import { CertificateService } from './certificate-service';
import { createClientCertificateAuthenticator } from './client-certificate';
import { type Connection, Connections } from './connections';
import { createGrpcServer } from './grpc-server';
import { serveHttpEndpoints } from './http-endpoints';
import { createJoinTokenAuthenticator } from './join-token';
import { DEFAULT_LIVE_PER_IDENTITY, PATIENCE } from './limits';
import { LiveCertificates } from './live-certificates';
import { createOidcAuthenticator, type OidcOptions } from './oidc';
import { RateLimiter, type RateLimits } from './rate-limits';
import { RenewalAfterExpiry } from './renewal-after-expiry';
import { followRevocations, type RevokedSerials } from './revoked-serials';
import { listenTls, type TlsListener } from './tls-listener';
import { createTokenReviewAuthenticator, type TokenReviewOptions } from './token-review';

export interface CaServerOptions extends TrustDomains {
  /** `host:port` for certificate requests; port 0 takes a free one. */
  readonly listen: string;
  /** Hosts that clients may call the server; the address of `listen` is added where it is one. */
  readonly serverNames: readonly string[];
  /** Whoever opened it closes it, and the store. */
  readonly authority: Authority;
  readonly store: CaStore;
  /** In the order in which they are asked; at least one. */
  readonly authenticators: readonly AuthenticatorName[];
  /** With `oidc`. */
  readonly oidc?: Omit<OidcOptions, keyof TrustDomains>;
  /** With `token-review`. */
  readonly tokenReview?: Omit<TokenReviewOptions, keyof TrustDomains>;
  /** How often callers may ask. */
  readonly rates: RateLimits;
  /** Valid certificates, not revoked, that one identity may have; default `DEFAULT_LIVE_PER_IDENTITY`. */
  readonly maxLivePerIdentity?: number;
  /** Default 90 days, as upstream's MAX_WORKLOAD_CERT_TTL. */
  readonly maxTtlSeconds?: number;
  /** How long after its end a certificate proves its holder for one renewal, milliseconds; default not at all. */
  readonly renewAfterExpiryMs?: number | undefined;
  readonly audit: AuditOptions;
  /** Takes audit lines where they go to no file. */
  readonly writeAuditLine: (line: string) => Promise<void>;
  /** Bundle, CRL, health and metrics over HTTP; undefined for none. */
  readonly http?: {
    /** What JWT-SVIDs are verified by; default nothing. */
    readonly jwtKeys?: () => Promise<readonly JwtKey[]>;
    /** `host:port`. */
    readonly address: string;
    readonly crl?: Pick<CrlPublisher, 'current' | 'problem'>;
    readonly metrics?: () => Promise<{ readonly contentType: string; readonly body: string }>;
  };
}

export interface CaServer {
  /** `host:port` with the port that was really taken. */
  readonly address: string;
  readonly httpAddress: string | undefined;
  /** Why no certificate can be issued now; empty where it can. */
  problems(): readonly AgentError[];
  /** Answers what was asked already, as far as that takes no longer than a moment, and frees both ports. */
  close(): Promise<void>;
}

const MAX_TTL_SECONDS = 90 * 24 * 3_600;
const GOODBYE_TURNS = 50;

/**
 * The authority as a service: `istio.v1.auth.IstioCertificateService/CreateCertificate` over TLS, with a certificate of its own. Resolves
 * when listening.
 *
 * @throws AgentError ERR_CONFIG, ERR_SOCKET, ERR_CA_UNAVAILABLE, ERR_CA_STATE.
 */
export async function createCaServer(options: CaServerOptions, deps: Deps): Promise<CaServer> {
  const address = parseHostPort(options.listen, '--listen');
  const names = serverNamesOf(address, options.serverNames);
  const opened: Closable[] = [];
  try {
    return await start(options, address, names, opened, deps);
  } catch (caught) {
    await closeAll(opened);
    throw caught;
  }
}

interface Closable {
  close(): Promise<void> | void;
}

async function start(
  options: CaServerOptions,
  address: HostPort,
  names: ServerNames,
  opened: Closable[],
  deps: Deps,
): Promise<CaServer> {
  // In the order in which they are to be closed: what answers first, what it needs last.
  const keep = <T extends Closable>(made: T): T => {
    opened.unshift(made);
    return made;
  };
  const { authority, store } = options;
  const audit = keep(await openAuditLog(options.audit, options.writeAuditLine, deps));
  const revoked = keep(await followRevocations(store, deps));
  const authenticators = await openAuthenticators(options, revoked, keep, deps);
  const limiter = new RateLimiter(options.rates, deps.clock);
  const maxTtlSeconds = options.maxTtlSeconds ?? MAX_TTL_SECONDS;
  const { maxLivePerIdentity = DEFAULT_LIVE_PER_IDENTITY } = options;
  const live = new LiveCertificates(
    maxLivePerIdentity,
    store,
    (serial) => revoked.has(serial),
    deps,
  );
  const service = new CertificateService(
    {
      authority,
      store,
      authenticators,
      limiter,
      live,
      audit,
      maxTtlSeconds,
      renewAfterExpiryMs: options.renewAfterExpiryMs,
    },
    deps,
  );
  keep({ close: () => service.close() });
  const parts = [
    authority,
    service,
    audit,
    revoked,
    ...(options.http?.crl ? [options.http.crl] : []),
  ];
  const problems = () => parts.map((part) => part.problem()).filter((each) => each !== undefined);
  const connections = new Connections();
  const grpc = createGrpcServer(service, connections, deps);
  const listener = await listen(
    options,
    address,
    names,
    connections,
    (socket, connection) => grpc.serve(socket, connection),
    keep,
    deps,
  );
  const sweeper = sweep(connections, deps);
  keep({ close: () => goodbye(listener, connections, grpc, sweeper) });
  const http =
    options.http &&
    keep(
      await serveHttpEndpoints(
        {
          address: parseHostPort(options.http.address, '--admin-address'),
          trust: authority.trust,
          crl: options.http.crl && (() => options.http!.crl!.current()),
          jwtKeys: options.http.jwtKeys ?? (async () => []),
          metrics: options.http.metrics,
          reasons: () => problems().map(({ message }) => message),
        },
        deps,
      ),
    );
  deps.log.info('ca server listening', {
    address: listener.address,
    names: [...names.dns, ...names.ip],
    authenticators: options.authenticators,
    http: http?.address,
  });
  let closing: Promise<void> | undefined;
  return {
    address: listener.address,
    httpAddress: http?.address,
    problems,
    close: () => {
      closing ??= closeAll(opened);
      return closing;
    },
  };
}

/** The listener with its certificate, which is there before the first handshake. */
async function listen(
  options: CaServerOptions,
  address: HostPort,
  names: ServerNames,
  connections: Connections,
  onSocket: (socket: TLSSocket, connection: Connection) => void,
  keep: <T extends Closable>(made: T) => T,
  deps: Deps,
): Promise<TlsListener> {
  let identity: ServingIdentity | undefined;
  let listener: TlsListener | undefined;
  const { authority, store } = options;
  keep(
    await createServingCertificate(
      {
        authority,
        names,
        use: (next) => {
          identity = next;
          listener?.use(next);
        },
        record: (leaf, spkiDer) =>
          store.recordIssued({
            serial: leaf.serial,
            id: names.dns[0] ?? names.ip[0]!,
            keySha256: createHash('sha256').update(spkiDer).digest('hex'),
            issuedAt: deps.clock.now(),
            notAfterAt: leaf.notAfterAt,
            issuerKeyId: leaf.issuerKeyId,
            rootKeySha256: leaf.rootKeySha256,
          }),
      },
      deps,
    ),
  );
  listener = await listenTls(address, identity!, connections, onSocket, deps);
  listener.use(identity!);
  return listener;
}

async function openAuthenticators(
  options: CaServerOptions,
  revoked: RevokedSerials,
  keep: <T extends Closable>(made: T) => T,
  deps: Deps,
): Promise<readonly Authenticator[]> {
  const {
    authenticators: names,
    oidc,
    tokenReview,
    authority,
    store,
    trustDomain,
    aliases,
    renewAfterExpiryMs: boundMs,
  } = options;
  const domains = { trustDomain, aliases };
  if (names.length === 0)
    throw invalid(
      'ERR_CONFIG',
      '--authenticators',
      'must name at least one: else no client can authenticate',
    );
  const open: Record<AuthenticatorName, () => Authenticator | Promise<Authenticator>> = {
    'client-certificate': () => {
      const afterExpiry =
        boundMs === undefined ? undefined : new RenewalAfterExpiry({ store, boundMs }, deps);
      const isRevoked = (serial: string) => revoked.has(serial);
      return createClientCertificateAuthenticator(
        { ...domains, trust: authority.trust, isRevoked, afterExpiry },
        deps,
      );
    },
    'join-token': () => createJoinTokenAuthenticator({ ...domains, store }, deps),
    oidc: () => {
      if (oidc === undefined)
        throw invalid(
          'ERR_CONFIG',
          '--authenticators',
          'must not name oidc without --oidc-issuer and --jwks',
        );
      return createOidcAuthenticator({ ...oidc, ...domains }, deps);
    },
    'token-review': () => {
      if (tokenReview === undefined)
        throw invalid(
          'ERR_CONFIG',
          '--authenticators',
          'must not name token-review without a Kubernetes API',
        );
      return createTokenReviewAuthenticator({ ...tokenReview, ...domains }, deps);
    },
  };
  const opened: Authenticator[] = [];
  for (const name of names) {
    const authenticator = await open[name]();
    keep({ close: () => authenticator.close?.() });
    opened.push(authenticator);
  }
  return opened;
}

/** Looks at silent and slow clients every second. */
function sweep(connections: Connections, { clock, log, metrics }: Deps): Closable {
  const stop = new AbortController();
  const running = (async () => {
    while (!stop.signal.aborted) {
      await clock.sleepUntil(clock.now() + PATIENCE.sweepMs, stop.signal);
      const ended = connections.sweep(clock.now());
      for (let each = 0; each < ended; each += 1)
        metrics.record('ca_refused_total', { reason: 'slow' });
    }
  })().catch((caught) => {
    if (AgentError.from(caught).code !== 'ERR_ABORTED')
      log.error('ca client sweep failed', { cause: caught });
  });
  return {
    close: async () => {
      stop.abort();
      await running;
    },
  };
}

async function goodbye(
  listener: TlsListener,
  connections: Connections,
  grpc: Closable,
  sweeper: Closable,
): Promise<void> {
  const stopped = listener.close();
  await sweeper.close();
  await grpc.close();
  for (let turn = 0; turn < GOODBYE_TURNS && connections.size > 0; turn += 1)
    await new Promise((done) => setImmediate(done));
  connections.destroyAll();
  await stopped;
}

async function closeAll(opened: readonly Closable[]): Promise<void> {
  for (const each of opened) await each.close();
}
