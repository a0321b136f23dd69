import { caGauges } from '../admin/gauges';
import type { Authority } from '../authority/authority';
import type { AuthenticatorName } from '../authority/server/authenticator';
import type { CaServer, CaServerOptions } from '../authority/server/ca-server';
import type { RateLimits } from '../authority/server/rate-limits';
import type { WorkerLine } from '../authority/server/worker-line';
import { type Closer, Closers } from '../base/closers';
import type { Health } from '../base/health';
import { parseHostPort } from '../base/host-port';
import { RUNTIME } from '../base/runtime';
import { VERSION } from '../base/version';
import { parseCertificate } from '../identity/certificate';
import type { EngineName } from '../identity/engine';
import type { KeyAlgorithm } from '../identity/keys';
import { loadEngine } from '../identity/load-engine';
import { openKubeApi } from '../kube/open-kube-api';
import type { AgentDeps } from './agent';
import { type CaStateConfig, openCaStore } from './open-ca-store';

/** How often a worker tells what it has counted. */
const REPORT_EVERY_MS = 1_000;

/** Every setting of `keyturn ca serve`, checked. Paths are relative to the working directory. */
export interface CaServiceConfig extends CaStateConfig {
  /** `host:port`; port 0 takes a free one. */
  readonly listen: string;
  /** Bundle, health and metrics over HTTP. */
  readonly adminAddress: string;
  readonly caKeyAlgorithm: KeyAlgorithm;
  readonly engine: EngineName;
  readonly trustDomain: string;
  readonly rootTrustDomains: readonly string[] | undefined;
  readonly aliases: readonly string[];
  /** What clients may call the server. */
  readonly serverNames: readonly string[];
  readonly authenticators: readonly AuthenticatorName[];
  /** Undefined where `authenticators` does not have `oidc`. */
  readonly oidc:
    | {
        readonly issuers: readonly string[];
        readonly jwks: string;
        readonly jwksCa: string | undefined;
      }
    | undefined;
  readonly audiences: readonly string[];
  readonly rates: RateLimits;
  readonly maxTtlSeconds: number;
  /** Undefined where a certificate proves nothing once it has ended. */
  readonly renewAfterExpiryMs: number | undefined;
  readonly maxLivePerIdentity: number;
  /** Undefined for lines to `writeAuditLine`. */
  readonly auditLog: string | undefined;
  /** Processes that answer; 1 is this one alone. */
  readonly workers: number;
}

/** What of the process the service uses. */
export interface CaServiceSurroundings {
  readonly env: NodeJS.ProcessEnv;
  readonly writeAuditLine: (line: string) => Promise<void>;
}

/** A running authority for others, in a process that is one of several. */
export interface CaWorker {
  readonly health: Health;
  close(): Promise<void>;
}

/** A running authority for others. */
export interface CaService {
  /** `host:port`, with the ports that were really taken. */
  readonly address: string;
  readonly adminAddress: string;
  readonly health: Health;
  /** Ends everything, innermost last. Idempotent. */
  close(): Promise<void>;
}

/**
 * Puts the authority of a directory behind a server, or behind several of them. Resolves when it listens.
 *
 * @throws AgentError; nothing is left behind: what had started is closed.
 */
export function startCaService(
  config: CaServiceConfig,
  around: CaServiceSurroundings,
  deps: AgentDeps,
): Promise<CaService> {
  return closingOnFailure(async (closers) =>
    config.workers > 1
      ? superviseServers(config, around, closers, deps)
      : openServer(config, around, closers, deps),
  );
}

/** One of several processes that answer, in the service of the one at the other end of the line. @throws AgentError. */
export function startCaWorker(
  config: CaServiceConfig,
  around: CaServiceSurroundings,
  line: WorkerLine,
  deps: AgentDeps,
): Promise<CaWorker> {
  return closingOnFailure(async (closers) => {
    const { authority, store } = await openState(config, around, closers, deps);
    const limited = config.rates.perIdentity > 0 || config.rates.total > 0;
    const server = await listen(config, around, closers, deps, {
      authority,
      store,
      rates: limited ? line : config.rates,
      audit: { path: undefined },
      writeAuditLine: (lines) => line.append(lines),
    });
    const problems = () => server.problems().map(({ message }) => message);
    const report = () =>
      line.tell({ kind: 'report', counted: deps.metrics.drain(), problems: problems() });
    line.onReport(() => void report());
    closers.add(reportNowAndThen(report, deps));
    return { health: serviceHealth(config.trustDomain, server.address, authority, problems) };
  });
}

/** Runs what adds its closers as it goes; what had started is closed where it fails, and at the end, innermost last. */
async function closingOnFailure<T extends object>(
  start: (closers: Closers) => Promise<T>,
): Promise<T & { close(): Promise<void> }> {
  const closers = new Closers();
  try {
    return { ...(await start(closers)), close: closers.close };
  } catch (caught) {
    await closers.close();
    throw caught;
  }
}

async function openState(
  config: CaServiceConfig,
  { env }: CaServiceSurroundings,
  closers: Closers,
  deps: AgentDeps,
) {
  const { openAuthority } = await import('../authority/authority');
  const { caDir: dir, trustDomain, rootTrustDomains, caKeyAlgorithm: rootAlgorithm } = config;
  const engine = await loadEngine(config.engine);
  const authority = await openAuthority(
    { dir, trustDomain, rootTrustDomains, rootAlgorithm, engine },
    deps,
  );
  closers.add(() => authority.close());
  const { store, close } = await openCaStore(config, env, deps);
  closers.add(close);
  return { authority, store };
}

/** What one process does for all: it tidies up, publishes the CRL, answers over HTTP. */
async function openUpkeep(
  config: CaServiceConfig,
  around: CaServiceSurroundings,
  closers: Closers,
  deps: AgentDeps,
) {
  const { createCrlPublisher } = await import('../authority/crl');
  const { keepTidy } = await import('../authority/store/upkeep');
  const state = await openState(config, around, closers, deps);
  const upkeep = keepTidy(state.store, deps);
  closers.add(() => upkeep.close());
  const crl = createCrlPublisher({ dir: config.caDir, store: state.store }, deps);
  closers.add(() => crl.close());
  const jwtKeys = async () => {
    const { readPublishedKeys } = await import('../authority/jwt/published-keys');
    return readPublishedKeys(config.caDir, deps.clock.now());
  };
  return { ...state, crl, jwtKeys };
}

async function exposition(authority: Authority, ready: boolean, deps: AgentDeps) {
  const { notAfterAt } = authority.describe();
  const roots = authority.trust.value.rootsDer.map((der) => parseCertificate(der, 'root'));
  const facts = { version: VERSION, runtime: RUNTIME, ready };
  return {
    contentType: deps.metrics.contentType,
    body: await deps.metrics.textWith(caGauges({ ...facts, signerNotAfterAt: notAfterAt, roots })),
  };
}

async function openServer(
  config: CaServiceConfig,
  around: CaServiceSurroundings,
  closers: Closers,
  deps: AgentDeps,
) {
  const { authority, store, crl, jwtKeys } = await openUpkeep(config, around, closers, deps);
  const problems = () => server.problems().map(({ message }) => message);
  const metrics = () => exposition(authority, problems().length === 0, deps);
  const server: CaServer = await listen(config, around, closers, deps, {
    authority,
    store,
    rates: config.rates,
    audit: { path: config.auditLog },
    writeAuditLine: around.writeAuditLine,
    http: { address: config.adminAddress, metrics, crl, jwtKeys },
  });
  const health = serviceHealth(config.trustDomain, server.address, authority, problems);
  return { address: server.address, adminAddress: server.httpAddress!, health };
}

/** As `openServer`, with the listening and signing in processes of their own. */
async function superviseServers(
  config: CaServiceConfig,
  around: CaServiceSurroundings,
  closers: Closers,
  deps: AgentDeps,
) {
  const { openAuditLines } = await import('../authority/server/audit-log');
  const { RateLimiter } = await import('../authority/server/rate-limits');
  const { serveHttpEndpoints } = await import('../authority/server/http-endpoints');
  const { startCaWorkers } = await import('./ca-workers');
  const { authority, crl, jwtKeys } = await openUpkeep(config, around, closers, deps);
  const audit = await openAuditLines({ path: config.auditLog }, around.writeAuditLine, deps);
  closers.add(() => audit.close());
  const shared = {
    limiter: new RateLimiter(config.rates, deps.clock),
    appendAudit: (lines: string) => audit.append(lines),
  };
  const workers = await startCaWorkers(config.workers, config.listen, shared, deps);
  closers.add(() => workers.close());
  const reasons = () => [
    ...[authority.problem(), crl.problem()]
      .filter((each) => each !== undefined)
      .map(({ message }) => message),
    ...workers.problems(),
  ];
  const http = await serveHttpEndpoints(
    {
      address: parseHostPort(config.adminAddress, '--admin-address'),
      trust: authority.trust,
      crl: () => crl.current(),
      jwtKeys,
      metrics: async () => {
        await workers.collect();
        return exposition(authority, reasons().length === 0, deps);
      },
      reasons,
    },
    deps,
  );
  closers.add(() => http.close());
  const health = serviceHealth(config.trustDomain, workers.address, authority, reasons);
  return { address: workers.address, adminAddress: http.address, health };
}

type Placed = 'authority' | 'store' | 'rates' | 'audit' | 'writeAuditLine' | 'http';

async function listen(
  config: CaServiceConfig,
  around: CaServiceSurroundings,
  closers: Closers,
  deps: AgentDeps,
  placed: Pick<CaServerOptions, Placed>,
): Promise<CaServer> {
  const {
    trustDomain,
    aliases,
    serverNames,
    authenticators,
    audiences,
    maxTtlSeconds,
    renewAfterExpiryMs,
    maxLivePerIdentity,
  } = config;
  const { createCaServer } = await import('../authority/server/ca-server');
  const api = authenticators.includes('token-review')
    ? await openKubeApi(config.kubeconfig, around.env, deps)
    : undefined;
  if (api) closers.add(() => api.close());
  const server = await createCaServer(
    {
      ...placed,
      listen: config.listen,
      serverNames,
      trustDomain,
      aliases,
      authenticators,
      ...(config.oidc && { oidc: { ...config.oidc, audiences } }),
      ...(api && { tokenReview: { api, audiences } }),
      maxTtlSeconds,
      renewAfterExpiryMs,
      maxLivePerIdentity,
    },
    deps,
  );
  closers.add(() => server.close());
  return server;
}

/** So that little of what was counted is lost where this process is killed, and problems are known before anybody asks. */
function reportNowAndThen(report: () => Promise<void>, { clock }: AgentDeps): Closer {
  const stop = new AbortController();
  const running = (async () => {
    for (;;) {
      await clock.sleepUntil(clock.now() + REPORT_EVERY_MS, stop.signal);
      await report();
    }
  })().catch(() => undefined);
  return async () => {
    stop.abort();
    await running;
    await report();
  };
}

function serviceHealth(
  trustDomain: string,
  address: string,
  authority: Authority,
  problems: () => readonly string[],
): Health {
  return {
    summary: () => {
      const until = new Date(authority.describe().notAfterAt).toISOString();
      const told = problems().map((problem) => `; ${problem}`);
      return `certifying for ${trustDomain} at ${address}, signer until ${until}${told.join('')}`;
    },
    // It waits for callers: there is nothing that it could miss by itself.
    stalled: () => undefined,
    onChange: (listener) => authority.trust.subscribe(listener),
  };
}
