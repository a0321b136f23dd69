import type { AgentStatus, AgentView, RotateResult } from './admin/agent-view';
import type { AgentMetrics } from './admin/metrics';
import { agentHealth } from './agent-health';
import { Closers } from './base/closers';
import type { Deps } from './base/deps';
import { AgentError } from './base/errors';
import type { Health } from './base/health';
import { RUNTIME } from './base/runtime';
import { firstValue } from './base/watched';
import { createCertSource } from './cert-source';
import type { Config, LoadedConfig } from './config/config';
import { formatSpiffeId } from './identity/spiffe-id';
import { createSharedCas } from './shared-cas';
import { VERSION } from './version';
import { servedSvid, startWorkload, type Workload } from './workload';

/** A running agent: 1..n workloads and, over them, health, metrics and control. */
export interface Agent {
  readonly view: AgentView;
  readonly health: Health;
  /** Where health and metrics answer, with the port that was really taken. */
  readonly adminAddress: string;
  /** Ends every loop and server; sockets are gone when it resolves. Idempotent. */
  close(): Promise<void>;
}

/** As `Deps`, with metrics that can also be rendered. */
export interface AgentDeps extends Deps {
  readonly metrics: AgentMetrics;
}

/** Health and control come up after the first attempt to obtain a certificate has ended, but no later than this. */
const ADMIN_AFTER_MS = 300;

/**
 * The composition root: the only place that constructs things. Resolves when SDS, health and control listen; the first certificate may
 * still be under way then.
 *
 * @throws AgentError; nothing is left behind: what had started is closed.
 */
export async function startAgent(loaded: LoadedConfig, deps: AgentDeps): Promise<Agent> {
  const startedAt = deps.clock.now();
  const { config } = loaded;
  const closers = new Closers();
  try {
    const workload = await startWorkload(config, await createCertSource(config, createSharedCas(deps), deps), deps);
    closers.add(() => workload.close());
    const view = createView(loaded, [workload], startedAt, deps);
    await firstAttempt(workload, deps);
    const control = await startControl(config, view, deps);
    closers.add(() => control.close());
    const admin = await startAdmin(config, view, deps);
    closers.add(() => admin.close());
    const health = agentHealth(view, [workload.source], () => deps.clock.now());
    return { view, health, adminAddress: admin.address, close: closers.close };
  } catch (caught) {
    await closers.close();
    throw caught;
  }
}

async function firstAttempt(workload: Workload, deps: Deps): Promise<void> {
  const waited = new AbortController();
  const late = deps.clock.sleepUntil(deps.clock.now() + ADMIN_AFTER_MS, waited.signal).catch(() => undefined);
  await Promise.race([firstValue(workload.source.state, (state) => state.kind !== 'starting'), late]);
  waited.abort();
}

async function startAdmin(config: Config, view: AgentView, deps: AgentDeps) {
  const { createAdminServer } = await import('./admin/http-server');
  return createAdminServer({ address: config.adminAddress, view, metrics: deps.metrics }, { ...deps, log: deps.log.scope('admin') });
}

async function startControl(config: Config, view: AgentView, deps: Deps) {
  const { createControlServer } = await import('./admin/control-server');
  return createControlServer({ path: config.controlSocket, view }, { ...deps, log: deps.log.scope('control') });
}

function createView(loaded: LoadedConfig, workloads: readonly Workload[], startedAt: number, deps: Deps): AgentView {
  const reasons = () => workloads.flatMap((workload) => workload.reasons());
  return {
    settings: () => loaded.settings,
    reasons,
    workloads: () => workloads.map((workload) => workload.view()),
    status: (): AgentStatus => {
      const because = reasons();
      return {
        version: VERSION,
        pid: process.pid,
        runtime: RUNTIME,
        startedAt: new Date(startedAt).toISOString(),
        now: new Date(deps.clock.now()).toISOString(),
        ready: because.length === 0,
        reasons: because,
        workloads: workloads.map((workload) => workload.status()),
      };
    },
    rotate: async (request, signal): Promise<RotateResult> => ({
      workloads: await Promise.all(workloads.map((workload) => rotateOne(workload, request, signal))),
    }),
  };
}

async function rotateOne(
  workload: Workload,
  request: { readonly wait: boolean; readonly reason: string },
  signal: AbortSignal,
): Promise<RotateResult['workloads'][number]> {
  const previous = servedSvid(workload.source.state.value);
  const svid = await workload.source.renewNow(request.reason);
  const acknowledged = request.wait ? await waitAcknowledged(workload, svid.serial, signal) : undefined;
  return {
    id: svid.id ? formatSpiffeId(svid.id) : 'mounted certificate',
    ...(previous && { previousSerial: previous.serial }),
    serial: svid.serial,
    notAfter: new Date(svid.notAfterAt).toISOString(),
    ...(acknowledged !== undefined && { acknowledged }),
  };
}

async function waitAcknowledged(workload: Workload, serial: string, signal: AbortSignal): Promise<number> {
  try {
    return await workload.sds.acknowledged(serial, signal);
  } catch (cause) {
    if (!signal.aborted) throw cause;
    throw new AgentError('ERR_TIMEOUT', `rotate: certificate ${serial} is in service, but not acknowledged by ${streamsBehind(workload)}`, {
      retry: 'soon',
      cause,
      hint: '`keyturn status` shows what each stream has accepted, and its words where it refused',
    });
  }
}

/** The streams that do not hold the current certificate, with their proxies' words where they refused it. At most a line of them. */
function streamsBehind(workload: Workload): string {
  const behind = workload.sds
    .streams()
    .flatMap(({ id, node, names }) => names.map((name) => ({ id, node, ...name })))
    .filter(({ name, sentVersion, acknowledgedVersion }) => name === 'default' && sentVersion !== acknowledgedVersion)
    .map(({ id, node, nack }) => `stream ${id} (${node || 'unnamed'}${nack ? `, refused: ${nack.message.slice(0, 200)}` : ''})`);
  const shown = behind.slice(0, 5).join(', ');
  return behind.length > 5 ? `${shown} and ${behind.length - 5} more` : shown || 'every stream';
}
