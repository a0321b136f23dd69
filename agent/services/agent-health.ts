import type { AgentView, WorkloadStatus } from '../admin/agent-view';
import type { Health } from '../base/health';
import { iso } from '../base/iso';
import type { Watched } from '../base/watched';
import type { CertSource, SourceDescription } from '../identity/cert-state';

/** How long after its time an attempt may begin, or end, before something hangs. */
const HANGING_MS = 120_000;
/** Of many workloads the first few say enough in one line. */
const MAX_REASONS = 3;

/** Those whose health it is. */
export interface SupervisedSource {
  workloads(): readonly { readonly source: CertSource }[];
  /** Changes when they come and go; undefined where they do not. */
  readonly changes: Watched<unknown> | undefined;
}

/** What an agent says of itself: which certificates it has, and whether every source still does something about them. */
export function agentHealth(view: AgentView, served: SupervisedSource, now: () => number): Health {
  const sources = () => served.workloads().map(({ source }) => source);
  return {
    summary: () => summary(view),
    stalled: () =>
      sources()
        .map((source) => stalled(source.describe(), now()))
        .find((each) => each !== undefined),
    onChange: (listener) => {
      let stops: (() => void)[] = [];
      const follow = () => {
        for (const stop of stops) stop();
        stops = sources().map(({ state }) => state.subscribe(listener));
        if (served.changes) listener();
      };
      const stopChanges = served.changes?.subscribe(follow);
      if (!stopChanges) follow();
      return () => {
        stopChanges?.();
        for (const stop of stops) stop();
      };
    },
  };
}

function summary(view: AgentView): string {
  // Of many no certificate is looked into: this is asked for after each change of each.
  const [only, ...more] = view.workloads();
  if (only && more.length === 0) return workloadSummary(view.status().workloads[0]!);
  const reasons = view.reasons();
  const count = view.workloads().length;
  if (reasons.length === 0) return `${count} workloads have their certificates`;
  const others = reasons.length > MAX_REASONS ? `; and ${reasons.length - MAX_REASONS} more` : '';
  return `${count} workloads, not ready: ${reasons.slice(0, MAX_REASONS).join('; ')}${others}`;
}

function workloadSummary({ id, state, certificate, lastError }: WorkloadStatus): string {
  const because = lastError
    ? `: ${lastError.message}${lastError.hint === undefined ? '' : ` (${lastError.hint})`}`
    : '';
  const until = certificate && `certificate ${certificate.serial} until ${certificate.notAfter}`;
  switch (state) {
    case 'starting':
      return `${id}: no certificate yet`;
    case 'current':
      return `${id}: ${until}${certificate?.renewAt === undefined ? '' : `, renewal at ${certificate.renewAt}`}`;
    case 'overdue':
      return `${id}: ${until}, renewal fails${because}`;
    case 'unavailable':
      return certificate
        ? `${id}: certificate ${certificate.serial} expired at ${certificate.notAfter}${because}`
        : `${id}: no certificate${because}`;
  }
}

/** A source that misses what it has set itself, or never comes back from it, will not renew anything any more. */
function stalled(
  { source, attemptSince, attemptUntil, dueAt }: SourceDescription,
  now: number,
): string | undefined {
  const wantedAt = attemptSince === undefined ? dueAt : (attemptUntil ?? attemptSince);
  if (wantedAt === undefined || now - wantedAt < HANGING_MS) return undefined;
  const when = iso(attemptSince ?? wantedAt);
  return attemptSince === undefined
    ? `${source}: overdue since ${when}`
    : `${source}: an attempt has hung since ${when}`;
}
