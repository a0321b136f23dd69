import { webhookGauges } from '../admin/gauges';
import { serveServiceAdmin, serviceHealth } from '../admin/service-admin';
import { serverNamesOf } from '../authority/server-names';
import { createServingCertificate } from '../authority/serving-certificate';
import { Closers } from '../base/closers';
import type { Health } from '../base/health';
import { parseHostPort } from '../base/host-port';
import { RUNTIME } from '../base/runtime';
import { VERSION } from '../base/version';
import { directEngine } from '../identity/direct-engine';
import { openKubeApi } from '../kube/open-kube-api';
import type { AdmissionRequest, Verdict } from '../webhook/admission-review';
import { createAdmissionServer } from '../webhook/admission-server';
import { admit, type InjectPod } from '../webhook/admit';
import { RootReconciler } from '../webhook/root-reconciler';
import type { AgentDeps } from './agent';

/** Every setting of `keyturn webhook`, checked. */
export interface WebhookServiceConfig {
  /** `host:port`; port 0 takes a free one. */
  readonly listen: string;
  /** Health and metrics over HTTP. */
  readonly adminAddress: string;
  /** What API servers call it; undefined for the service `keyturn-webhook` of the namespace. */
  readonly serverNames: readonly string[] | undefined;
  /** Of the Secret; undefined for that of the kubeconfig or the pod. */
  readonly namespace: string | undefined;
  readonly secret: string;
  /** Name of the MutatingWebhookConfiguration. */
  readonly configuration: string;
  readonly kubeconfig: string | undefined;
  readonly inject: InjectPod;
}

/** A running webhook. */
export interface WebhookService {
  readonly health: Health;
  /** `host:port`, with the ports that were really taken. */
  readonly address: string;
  readonly adminAddress: string;
  /** Ends everything, innermost last. Idempotent. */
  close(): Promise<void>;
}

/**
 * Injects pods for API servers. Resolves when both ports are open; it is ready when the API server has been told whom to trust, which the
 * health port says.
 *
 * @throws AgentError; nothing is left behind: what had started is closed.
 */
export async function startWebhookService(
  config: WebhookServiceConfig,
  env: NodeJS.ProcessEnv,
  deps: AgentDeps,
): Promise<WebhookService> {
  const closers = new Closers();
  try {
    return { ...(await open(config, env, closers, deps)), close: closers.close };
  } catch (caught) {
    await closers.close();
    throw caught;
  }
}

async function open(
  config: WebhookServiceConfig,
  env: NodeJS.ProcessEnv,
  closers: Closers,
  deps: AgentDeps,
) {
  const { secret, configuration } = config;
  const listen = parseHostPort(config.listen, '--listen');
  const api = await openKubeApi(config.kubeconfig, env, deps);
  closers.add(() => api.close());
  const namespace = config.namespace ?? api.namespace ?? 'default';
  const names = serverNamesOf(listen, config.serverNames ?? [`keyturn-webhook.${namespace}.svc`]);
  const server = await createAdmissionServer(
    { address: listen, decide: (request) => decide(request, config.inject, deps) },
    deps,
  );
  closers.add(() => server.close());
  const keeper = new RootReconciler(
    {
      api,
      engine: directEngine,
      namespace,
      secret,
      configuration,
      onAuthority: async (authority) => {
        // There is no register: nobody but the API server looks at these certificates, and it goes by the root.
        const record = async () => undefined;
        const serving = await createServingCertificate(
          { authority, names, use: (key) => server.use(key), record },
          deps,
        );
        closers.add(() => serving.close());
      },
    },
    deps,
  );
  const problem = () => keeper.problem();
  const gauges = () => {
    const ready = problem() === undefined;
    return webhookGauges({
      version: VERSION,
      runtime: RUNTIME,
      ready,
      rootNotAfterAt: keeper.issuer()?.notAfterAt,
    });
  };
  const admin = await serveServiceAdmin({ address: config.adminAddress, problem, gauges }, deps);
  closers.add(() => admin.close());
  const stop = new AbortController();
  const keeping = keeper.run(stop.signal);
  closers.add(async () => {
    stop.abort();
    await keeping;
  });
  return {
    health: serviceHealth(problem, 'injecting pods'),
    address: server.address,
    adminAddress: admin.address,
  };
}

/** One decision, one line that says it, and its count. */
function decide(
  request: AdmissionRequest,
  inject: InjectPod,
  { log, metrics }: AgentDeps,
): Verdict {
  const startedAt = performance.now();
  const verdict = admit(request, inject);
  metrics.record('webhook_request_duration_seconds', {}, (performance.now() - startedAt) / 1_000);
  const outcome =
    verdict.kind === 'denied' ? 'denied' : verdict.patch.length === 0 ? 'unchanged' : 'injected';
  metrics.record('webhook_requests_total', { outcome });
  const facts = {
    uid: request.uid,
    namespace: request.namespace,
    pod: nameOf(request.object),
    dryRun: request.dryRun,
  };
  if (verdict.kind === 'denied') log.warn('pod denied', { ...facts, reason: verdict.message });
  else if (outcome === 'injected')
    log.info('pod injected', { ...facts, warnings: verdict.warnings });
  else log.debug('pod unchanged', facts);
  return verdict;
}

/** A pod of a controller has the beginning of a name at this time. */
function nameOf(object: unknown): string | undefined {
  const { metadata } = (object ?? {}) as { metadata?: { name?: unknown; generateName?: unknown } };
  const name = metadata?.name ?? metadata?.generateName;
  return typeof name === 'string' ? name.slice(0, 253) : undefined;
}
