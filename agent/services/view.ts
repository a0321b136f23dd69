import type { AgentStatus, AgentView, RefusedEntry, RotateResult } from '../admin/agent-view';
import type { Deps } from '../base/deps';
import { AgentError, invalid } from '../base/errors';
import { iso } from '../base/iso';
import { RUNTIME } from '../base/runtime';
import { VERSION } from '../base/version';
import type { Watched } from '../base/watched';
import type { LoadedConfig } from '../config/config';
import { formatSpiffeId } from '../identity/spiffe-id';
import { servedSvid, type Workload } from '../workload/workload';

/** What an agent serves: one workload, or those of a list as they come and go. */
export interface ServedWorkload {
  workloads(): readonly Workload[];
  /** What of a list is not followed, and why. */
  refused(): readonly RefusedEntry[];
  /** Changes when workloads come and go; undefined where they do not. */
  readonly changes: Watched<unknown> | undefined;
  /** Reads the list again; undefined where there is none. */
  readonly reload: (() => Promise<void>) | undefined;
  readonly close: () => Promise<void>;
}

/**
 * What the admin side may see of and ask from an agent that serves these.
 *
 * @param own  Why the agent is not ready beside its workloads.
 */
export function createView(
  loaded: LoadedConfig,
  served: ServedWorkload,
  own: () => readonly string[],
  startedAt: number,
  deps: Deps,
): AgentView {
  const reasons = () => [...own(), ...notReady(served, loaded.config.workloadsReady)];
  return {
    settings: () => loaded.settings,
    reasons,
    workloads: () => served.workloads().map((workload) => workload.view()),
    status: (): AgentStatus => {
      const because = reasons();
      const refused = served.refused();
      return {
        version: VERSION,
        pid: process.pid,
        runtime: RUNTIME,
        startedAt: iso(startedAt),
        now: iso(deps.clock.now()),
        ready: because.length === 0,
        reasons: because,
        workloads: served.workloads().map((workload) => workload.status()),
        ...(refused.length > 0 && { refused }),
      };
    },
    rotate: (request, signal) =>
      rotateAll(named(served.workloads(), request.workload), request, signal),
  };
}

/**
 * Why an agent is not ready: for each workload that is not, its reasons; and what is right but could not be put into service. An entry that is
 * refused takes nothing from the others: `status` and a metric have it. Where nothing is in service, it is the reason.
 */
function notReady(served: ServedWorkload, policy: 'all' | 'any'): readonly string[] {
  const perWorkload = served.workloads().map((workload) => workload.reasons());
  if (policy === 'any' && perWorkload.some((each) => each.length === 0)) return [];
  const missing = served.refused().filter(({ inService }) => !inService);
  const counted =
    perWorkload.length === 0 ? missing : missing.filter(({ outcome }) => outcome === 'failed');
  return [...perWorkload.flat(), ...counted.map(reasonOf)];
}

/** As a workload's own reasons begin. */
function reasonOf({ name, message }: RefusedEntry): string {
  const subject = `workload ${name}: `;
  return name === undefined || message.startsWith(subject) ? message : `${subject}${message}`;
}

/** All of them, or the one of that name. */
function named(workloads: readonly Workload[], name: string | undefined): readonly Workload[] {
  if (name === undefined) return workloads;
  const found = workloads.filter((workload) => workload.name === name);
  if (found.length > 0) return found;
  throw invalid(
    'ERR_USAGE',
    'workload',
    `${JSON.stringify(name.slice(0, 100))} is not among those in service`,
    {
      hint: '`keyturn status` lists them',
    },
  );
}

/** Each for itself: one that fails is told beside the others. */
async function rotateAll(
  workloads: readonly Workload[],
  request: RotateRequest,
  signal: AbortSignal,
): Promise<RotateResult> {
  const [only, ...more] = workloads;
  if (only && more.length === 0) return { workloads: [await rotateOne(only, request, signal)] };
  const outcomes = await Promise.allSettled(
    workloads.map((workload) => rotateOne(workload, request, signal)),
  );
  const failed = outcomes.flatMap((each, index) =>
    each.status === 'rejected' ? [failure(workloads[index]!, each.reason)] : [],
  );
  return {
    workloads: outcomes.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : [])),
    ...(failed.length > 0 && { failed }),
  };
}

function failure(
  { name, view }: Workload,
  caught: unknown,
): NonNullable<RotateResult['failed']>[number] {
  const { code, message, hint } = AgentError.from(caught);
  return {
    ...(name !== undefined && { name }),
    id: view().id,
    code,
    message,
    ...(hint !== undefined && { hint }),
  };
}

type RotateRequest = Parameters<AgentView['rotate']>[0];

async function rotateOne(
  workload: Workload,
  request: RotateRequest,
  signal: AbortSignal,
): Promise<RotateResult['workloads'][number]> {
  const previous = servedSvid(workload.source.state.value);
  const svid = await workload.source.renewNow(request.reason);
  const acknowledged = request.wait
    ? await waitAcknowledged(workload, svid.serial, signal)
    : undefined;
  return {
    ...(workload.name !== undefined && { name: workload.name }),
    id: svid.id ? formatSpiffeId(svid.id) : 'mounted certificate',
    ...(previous && { previousSerial: previous.serial }),
    serial: svid.serial,
    notAfter: iso(svid.notAfterAt),
    ...(acknowledged !== undefined && { acknowledged }),
  };
}

async function waitAcknowledged(
  workload: Workload,
  serial: string,
  signal: AbortSignal,
): Promise<number> {
  try {
    return await workload.sds.acknowledged(serial, signal);
  } catch (cause) {
    if (!signal.aborted) throw cause;
    throw new AgentError(
      'ERR_TIMEOUT',
      `rotate: certificate ${serial} is in service, but not acknowledged by ${streamsBehind(workload)}`,
      {
        retry: 'soon',
        cause,
        hint: '`keyturn status` shows what each stream has accepted, and its words where it refused',
      },
    );
  }
}

/** The streams that do not hold the current certificate, with their proxies' words where they refused it. At most a line of them. */
function streamsBehind(workload: Workload): string {
  const behind = workload.sds
    .streams()
    .flatMap(({ id, node, names }) => names.map((name) => ({ id, node, ...name })))
    .filter(
      ({ name, sentVersion, acknowledgedVersion }) =>
        (name === 'default' || name.startsWith('spiffe://')) && sentVersion !== acknowledgedVersion,
    )
    .map(
      ({ id, node, nack }) =>
        `stream ${id} (${node || 'unnamed'}${nack ? `, refused: ${nack.message.slice(0, 200)}` : ''})`,
    );
  const shown = behind.slice(0, 5).join(', ');
  return behind.length > 5 ? `${shown} and ${behind.length - 5} more` : shown || 'every stream';
}
