import { caGauges } from '../admin/gauges';
import type { Authority } from '../authority/authority';
import type { AuthenticatorName } from '../authority/server/authenticator';
import type { CaServer, CaServerOptions } from '../authority/server/ca-server';
import type { RateLimits } from '../authority/server/rate-limits';
import { Closers } from '../base/closers';
import type { Health } from '../base/health';
import { iso } from '../base/iso';
import { RUNTIME } from '../base/runtime';
import { VERSION } from '../base/version';
import { parseCertificate } from '../identity/certificate';
import type { EngineName } from '../identity/engine';
import type { KeyAlgorithm } from '../identity/keys';
import { loadEngine } from '../identity/load-engine';
import { openKubeApi } from '../kube/open-kube-api';
import type { AgentDeps } from './agent';
import { type CaStateConfig, openCaStore } from './open-ca-store';

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
}

/** What of the process the service uses. */
export interface CaServiceSurroundings {
  readonly env: NodeJS.ProcessEnv;
  readonly writeAuditLine: (line: string) => Promise<void>;
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
 * Puts the authority of a directory behind a server. Resolves when it listens.
 *
 * @throws AgentError; nothing is left behind: what had started is closed.
 */
export async function startCaService(
  config: CaServiceConfig,
  around: CaServiceSurroundings,
  deps: AgentDeps,
): Promise<CaService> {
  const closers = new Closers();
  try {
    return { ...(await openServer(config, around, closers, deps)), close: closers.close };
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

/** The authority with what keeps its state in order, and what is published of it. */
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

function serviceHealth(
  trustDomain: string,
  address: string,
  authority: Authority,
  problems: () => readonly string[],
): Health {
  return {
    summary: () => {
      const until = iso(authority.describe().notAfterAt);
      const told = problems().map((problem) => `; ${problem}`);
      return `certifying for ${trustDomain} at ${address}, signer until ${until}${told.join('')}`;
    },
    // It waits for callers: there is nothing that it could miss by itself.
    stalled: () => undefined,
    onChange: (listener) => authority.trust.subscribe(listener),
  };
}
