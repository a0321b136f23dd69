import { caGauges } from '../admin/gauges';
import type { Authority } from '../authority/authority';
import type { AuthenticatorName } from '../authority/server/authenticator';
import type { CaServer } from '../authority/server/ca-server';
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

async function openServer(
  config: CaServiceConfig,
  around: CaServiceSurroundings,
  closers: Closers,
  deps: AgentDeps,
) {
  const { authority, store, crl } = await openState(config, around, closers, deps);
  const { createCaServer } = await import('../authority/server/ca-server');
  const { trustDomain, authenticators, audiences, oidc } = config;
  const api = authenticators.includes('token-review')
    ? await openKubeApi(config.kubeconfig, around.env, deps)
    : undefined;
  if (api) closers.add(() => api.close());
  const problems = () => server.problems().map(({ message }) => message);
  const server: CaServer = await createCaServer(
    {
      authority,
      store,
      listen: config.listen,
      serverNames: config.serverNames,
      trustDomain,
      aliases: config.aliases,
      authenticators,
      ...(oidc && { oidc: { ...oidc, audiences } }),
      ...(api && { tokenReview: { api, audiences } }),
      rates: config.rates,
      maxTtlSeconds: config.maxTtlSeconds,
      renewAfterExpiryMs: config.renewAfterExpiryMs,
      maxLivePerIdentity: config.maxLivePerIdentity,
      audit: { path: config.auditLog },
      writeAuditLine: around.writeAuditLine,
      http: {
        address: config.adminAddress,
        metrics: () => exposition(authority, problems().length === 0, deps),
        crl,
        jwtKeys: async () => {
          const { readPublishedKeys } = await import('../authority/jwt/published-keys');
          return readPublishedKeys(config.caDir, deps.clock.now());
        },
      },
    },
    deps,
  );
  closers.add(() => server.close());
  const health = serviceHealth(trustDomain, server.address, authority, problems);
  return { address: server.address, adminAddress: server.httpAddress!, health };
}

/** The authority and its register, with what keeps that in order and what is published of it. */
async function openState(
  config: CaServiceConfig,
  { env }: CaServiceSurroundings,
  closers: Closers,
  deps: AgentDeps,
) {
  const { openAuthority } = await import('../authority/authority');
  const { createCrlPublisher } = await import('../authority/crl');
  const { keepTidy } = await import('../authority/store/upkeep');
  const { caDir: dir, trustDomain, rootTrustDomains, caKeyAlgorithm: rootAlgorithm } = config;
  const engine = await loadEngine(config.engine);
  const authority = await openAuthority(
    { dir, trustDomain, rootTrustDomains, rootAlgorithm, engine },
    deps,
  );
  closers.add(() => authority.close());
  const { store, close } = await openCaStore(config, env, deps);
  closers.add(close);
  const upkeep = keepTidy(store, deps);
  closers.add(() => upkeep.close());
  const crl = createCrlPublisher({ dir, store }, deps);
  closers.add(() => crl.close());
  return { authority, store, crl };
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
