import type { Authority } from '../ca-client/builtin/authority';
import type { AuthenticatorName } from '../ca-client/builtin/server/authenticator';
import type { CaServer } from '../ca-client/builtin/server/ca-server';
import type { RateLimits } from '../ca-client/builtin/server/rate-limits';
import { caGauges } from './admin/gauges';
import type { AgentDeps } from './agent';
import { Closers } from './base/closers';
import type { Health } from './base/health';
import { RUNTIME } from './base/runtime';
import { parseCertificate } from './identity/certificate';
import type { EngineName } from './identity/engine';
import type { KeyAlgorithm } from './identity/keys';
import { loadEngine } from './identity/load-engine';
import { type CaStateConfig, openCaStore } from './open-ca-store';
import { openKubeApi } from './open-kube-api';
import { VERSION } from './version';

/** Every setting of `keyturn ca serve`, checked. Paths are relative to the working directory. */
export interface CaServiceConfig extends CaStateConfig {
  /** `host:port`; port 0 takes a free one. */
  readonly listen: string;
  /** Bundle, health and metrics over HTTP. */
  readonly adminAddress: string;
  readonly caKeyAlgorithm: KeyAlgorithm;
  readonly engine: EngineName;
  readonly trustDomain: string;
  readonly aliases: readonly string[];
  /** What clients may call the server. */
  readonly serverNames: readonly string[];
  readonly authenticators: readonly AuthenticatorName[];
  /** Undefined where `authenticators` does not have `oidc`. */
  readonly oidc: { readonly issuers: readonly string[]; readonly jwks: string; readonly jwksCa: string | undefined } | undefined;
  readonly audiences: readonly string[];
  readonly rates: RateLimits;
  readonly maxTtlSeconds: number;
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
export async function startCaService(config: CaServiceConfig, around: CaServiceSurroundings, deps: AgentDeps): Promise<CaService> {
  const closers = new Closers();
  try {
    const { server, authority } = await openServer(config, around, closers, deps);
    const health = serviceHealth(config.trustDomain, server, authority);
    return { address: server.address, adminAddress: server.httpAddress!, health, close: closers.close };
  } catch (caught) {
    await closers.close();
    throw caught;
  }
}

async function openServer(config: CaServiceConfig, around: CaServiceSurroundings, closers: Closers, deps: AgentDeps) {
  const { trustDomain, authenticators, audiences } = config;
  const { openAuthority } = await import('../ca-client/builtin/authority');
  const { createCrlPublisher } = await import('../ca-client/builtin/crl');
  const { createCaServer } = await import('../ca-client/builtin/server/ca-server');
  const { keepTidy } = await import('../ca-client/builtin/store/upkeep');
  const engine = await loadEngine(config.engine);
  const authority = await openAuthority({ dir: config.caDir, trustDomain, rootAlgorithm: config.caKeyAlgorithm, engine }, deps);
  closers.add(() => authority.close());
  const { store, close } = await openCaStore(config, around.env, deps);
  closers.add(close);
  const upkeep = keepTidy(store, deps);
  closers.add(() => upkeep.close());
  const crl = createCrlPublisher({ dir: config.caDir, store }, deps);
  closers.add(async () => crl.close());
  const api = authenticators.includes('token-review') ? await openKubeApi(config.kubeconfig, around.env, deps) : undefined;
  if (api) closers.add(() => api.close());
  const metrics = async () => {
    const { notAfterAt } = authority.describe();
    const roots = authority.trust.value.rootsDer.map((der) => parseCertificate(der, 'root'));
    const facts = { version: VERSION, runtime: RUNTIME, ready: server.problems().length === 0 };
    return {
      contentType: deps.metrics.contentType,
      body: await deps.metrics.textWith(caGauges({ ...facts, signerNotAfterAt: notAfterAt, roots })),
    };
  };
  const server = await createCaServer(
    {
      listen: config.listen,
      serverNames: config.serverNames,
      authority,
      store,
      trustDomain,
      aliases: config.aliases,
      authenticators,
      ...(config.oidc && { oidc: { ...config.oidc, audiences } }),
      ...(api && { tokenReview: { api, audiences } }),
      rates: config.rates,
      maxTtlSeconds: config.maxTtlSeconds,
      audit: { path: config.auditLog },
      writeAuditLine: around.writeAuditLine,
      http: { address: config.adminAddress, metrics, crl: () => crl.current() },
    },
    deps,
  );
  closers.add(() => server.close());
  return { server, authority };
}

function serviceHealth(trustDomain: string, server: CaServer, authority: Authority): Health {
  return {
    summary: () => {
      const until = new Date(authority.describe().notAfterAt).toISOString();
      const problems = server.problems().map(({ message }) => `; ${message}`);
      return `certifying for ${trustDomain} at ${server.address}, signer until ${until}${problems.join('')}`;
    },
    // It waits for callers: there is nothing that it could miss by itself.
    stalled: () => undefined,
    onChange: (listener) => authority.trust.subscribe(listener),
  };
}
