import type { AgentView } from '../admin/agent-view';
import type { ControlServer } from '../admin/control-server';
import type { AgentMetrics } from '../admin/metrics';
import { Closers } from '../base/closers';
import type { Deps } from '../base/deps';
import type { Health } from '../base/health';
import { firstValue } from '../base/watched';
import type { Config, LoadedConfig } from '../config/config';
import { createCertSource } from '../workload/cert-source';
import { createSharedCas } from '../workload/shared-cas';
import { startWorkload, type Workload } from '../workload/workload';
import { agentHealth } from './agent-health';
import { createView, type ServedWorkload } from './view';

/** A running agent: 1..n workloads and, over them, health, metrics and control. */
export interface Agent {
  readonly view: AgentView;
  readonly health: Health;
  /** Where health and metrics answer, with the port that was really taken. */
  readonly adminAddress: string;
  /** Reads the list of workloads again; undefined where there is none. Never throws. */
  readonly reload: (() => Promise<void>) | undefined;
  /** Ends every loop and server; sockets are gone when it resolves. Idempotent. */
  close(): Promise<void>;
}

/** As `Deps`, with metrics that can also be rendered. */
export interface AgentDeps extends Deps {
  readonly metrics: AgentMetrics;
}

/** Health and control come up after the first attempt to obtain a certificate has ended, but no later than this. */
const ADMIN_AFTER_MS = 300;
/** So long the processor belongs to the proxies that have waited for the certificate: loading health and control takes it for 5 ms. */
const PROXIES_FIRST_MS = 20;

/**
 * The composition root: the only place that constructs things. Resolves when SDS, health and control listen; the first certificate may
 * still be under way then.
 *
 * @param stopping  Fires when it is to be closed as soon as it has started: workloads of a list that wait for their turn are left out.
 * @throws          AgentError; nothing is left behind: what had started is closed.
 */
export async function startAgent(
  loaded: LoadedConfig,
  deps: AgentDeps,
  stopping: AbortSignal,
): Promise<Agent> {
  const startedAt = deps.clock.now();
  const { config } = loaded;
  const closers = new Closers();
  try {
    const served =
      config.workloads === undefined
        ? await serveOne(config, deps)
        : await serveList(loaded, deps, stopping);
    closers.add(served.close);
    let control: ControlServer | undefined;
    const own = () => [control?.problem()].filter((each) => each !== undefined);
    const view = createView(loaded, served, own, startedAt, deps);
    await firstAttempts(served.workloads(), deps, stopping);
    await deps.clock
      .sleepUntil(deps.clock.now() + PROXIES_FIRST_MS, stopping)
      .catch(() => undefined);
    control = await startControl(config, view, deps);
    closers.add(() => control!.close());
    const admin = await startAdmin(loaded, view, deps);
    closers.add(() => admin.close());
    const health = agentHealth(view, served, () => deps.clock.now());
    return {
      view,
      health,
      adminAddress: admin.address,
      reload: served.reload,
      close: closers.close,
    };
  } catch (caught) {
    await closers.close();
    throw caught;
  }
}

/** The one workload of the settings. */
async function serveOne(config: Config, deps: Deps): Promise<ServedWorkload> {
  const shared = createSharedCas(deps);
  const workload = await startWorkload(
    config,
    await createCertSource(config, shared, deps),
    shared,
    deps,
  );
  const only = [workload];
  return {
    workloads: () => only,
    refused: () => [],
    changes: undefined,
    reload: undefined,
    close: () => workload.close(),
  };
}

/** The workloads of a list, which a process with one never loads. */
async function serveList(
  loaded: LoadedConfig,
  deps: Deps,
  stopping: AbortSignal,
): Promise<ServedWorkload> {
  const { followWorkloads } = await import('../workload/follow-workloads');
  const followed = await followWorkloads(
    loaded,
    { ...deps, log: deps.log.scope('workloads') },
    stopping,
  );
  return {
    workloads: () => followed.set.workloads(),
    refused: () => followed.refused(),
    changes: followed.set.changes,
    reload: () => followed.reload(),
    close: () => followed.close(),
  };
}

async function firstAttempts(
  workloads: readonly Workload[],
  deps: Deps,
  stopping: AbortSignal,
): Promise<void> {
  const waited = new AbortController();
  const late = deps.clock
    .sleepUntil(deps.clock.now() + ADMIN_AFTER_MS, AbortSignal.any([waited.signal, stopping]))
    .catch(() => undefined);
  const first = workloads.map(({ source }) =>
    firstValue(source.state, (state) => state.kind !== 'starting'),
  );
  await Promise.race([Promise.all(first), late]);
  waited.abort();
}

async function startAdmin({ config, settings }: LoadedConfig, view: AgentView, deps: AgentDeps) {
  const { createAdminServer } = await import('../admin/http-server');
  const { origin } = settings.find(({ name }) => name === 'admin-address')!;
  return createAdminServer(
    { address: config.adminAddress, origin, view, metrics: deps.metrics },
    { ...deps, log: deps.log.scope('admin') },
  );
}

async function startControl(config: Config, view: AgentView, deps: Deps) {
  const { createControlServer } = await import('../admin/control-server');
  return createControlServer(
    { path: config.controlSocket, view },
    { ...deps, log: deps.log.scope('control') },
  );
}
