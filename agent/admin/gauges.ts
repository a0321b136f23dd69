import { readdir, readFile } from 'node:fs/promises';
import type { AgentStatus, WorkloadStatus, WorkloadView } from './agent-view';
import type { Counters } from './counters';

/** A metric as it stands at the moment of a scrape. One without values is left out of the exposition. */
export interface Gauge {
  readonly name: string;
  readonly type: 'gauge' | 'counter';
  readonly help: string;
  readonly values: readonly {
    readonly labels: Readonly<Record<string, string>>;
    readonly value: number;
  }[];
}

const BREAKERS = ['closed', 'open', 'half-open'] as const;
const STATES: readonly WorkloadStatus['state'][] = [
  'starting',
  'current',
  'overdue',
  'unavailable',
];

/** What the agent holds: certificates, roots, streams. Instants are seconds since the epoch, so that a rule subtracts `time()`. */
export function agentGauges(status: AgentStatus, views: readonly WorkloadView[]): Gauge[] {
  const { workloads } = status;
  return [
    single('keyturn_build_info', 'Always 1; which version runs on what.', 1, {
      version: status.version,
      runtime: status.runtime,
    }),
    single(
      'keyturn_clock_time_seconds',
      "The agent's wall clock, to be compared with the scraper's.",
      seconds(status.now),
    ),
    single('keyturn_start_time_seconds', 'When the agent started.', seconds(status.startedAt)),
    single('keyturn_ready', 'Whether /healthz/ready answers yes.', status.ready ? 1 : 0),
    single('keyturn_workloads', 'Workloads in service.', workloads.length),
    single(
      'keyturn_workloads_refused',
      'Entries of the list of workloads that are wrong and not followed.',
      entries(status, 'refused'),
    ),
    single(
      'keyturn_workloads_failed',
      'Entries of the list of workloads that could not be put into service.',
      entries(status, 'failed'),
    ),
    {
      ...perWorkload(
        'keyturn_workload_renewals_total',
        'Certificates obtained for each workload.',
        workloads,
        (each) => each.renewals,
      ),
      type: 'counter',
    },
    perWorkload(
      'keyturn_certificate_not_before_timestamp_seconds',
      "The certificate's notBefore.",
      workloads,
      (each) => seconds(each.certificate?.notBefore),
    ),
    perWorkload(
      'keyturn_certificate_not_after_timestamp_seconds',
      'When the certificate or the first of its issuers expires; it stays when that is past.',
      workloads,
      (each) => seconds(each.certificate?.notAfter),
    ),
    perWorkload(
      'keyturn_certificate_renew_at_timestamp_seconds',
      'When the certificate is due for renewal.',
      workloads,
      (each) => seconds(each.certificate?.renewAt),
    ),
    {
      name: 'keyturn_certificate_state',
      type: 'gauge',
      help: 'Which state the certificate is in: 1 for that one, 0 for the others.',
      values: workloads.flatMap((each) =>
        STATES.map((state) => ({
          labels: { ...whose(each), state },
          value: each.state === state ? 1 : 0,
        })),
      ),
    },
    perWorkload(
      'keyturn_outage_budget_seconds',
      'How long the CA may be away before a certificate expires.',
      workloads,
      (each) => each.outageBudget?.seconds,
    ),
    {
      name: 'keyturn_certificate_signer',
      type: 'gauge',
      help: 'Always 1; which CA signed the certificate.',
      values: workloads.flatMap((each) =>
        each.certificate
          ? [{ labels: { ...whose(each), ca: each.certificate.signedBy }, value: 1 }]
          : [],
      ),
    },
    {
      name: 'keyturn_ca_breaker',
      type: 'gauge',
      help: 'State of the circuit breaker of each CA: 1 for the present state, 0 for the others.',
      values: workloads.flatMap((workload) =>
        (workload.authorities ?? []).flatMap(({ name, breaker }) =>
          BREAKERS.map((each) => ({
            labels: { ...named(workload), ca: name, state: each },
            value: each === breaker ? 1 : 0,
          })),
        ),
      ),
    },
    {
      name: 'keyturn_root_not_after_timestamp_seconds',
      type: 'gauge',
      help: 'When a root of the trust bundle expires.',
      values: workloads.flatMap((each) =>
        each.roots.map(({ sha256, notAfter }) => ({
          labels: { ...whose(each), sha256 },
          value: seconds(notAfter),
        })),
      ),
    },
    perWorkload(
      'keyturn_consecutive_failures',
      'Failed attempts to renew since the last success.',
      views,
      (each) => each.failures,
    ),
    perWorkload('keyturn_sds_streams', 'SDS streams that are open.', views, (each) => each.streams),
    perWorkload(
      'keyturn_sds_unacknowledged_streams',
      'SDS streams that have not acknowledged the newest response.',
      views,
      (each) => each.unacknowledged,
    ),
  ];
}

/**
 * The metrics of Istio's agent whose meaning we have, under its names and with its units: milliseconds in `outgoing_latency`, and an expiry
 * that is relative to now.
 *
 * @see istio pkg/security/monitoring, security/pkg/nodeagent/cache/monitoring.go, pkg/istio-agent/metrics.
 */
export function upstreamGauges(
  status: AgentStatus,
  tally: Counters,
  own: { readonly scrapes: number; readonly readySeconds: number | undefined },
): Gauge[] {
  const csr = { request_type: 'csr' };
  const failed = tally.count('ca_request_duration_seconds', (labels) => labels.outcome !== 'ok');
  const latencyMs = tally
    .series('ca_request_duration_seconds')
    .reduce((total, each) => total + each.sum * 1000, 0);
  const expiries = status.workloads.flatMap((each) => seconds(each.certificate?.notAfter) ?? []);
  const untilExpiry = expiries.length > 0 ? Math.min(...expiries) - seconds(status.now) : undefined;
  const counter = (
    name: string,
    help: string,
    value: number,
    labels: Record<string, string> = {},
  ): Gauge => ({
    ...single(`istio_agent_${name}`, help, value, labels),
    type: 'counter',
  });
  return [
    counter(
      'num_outgoing_requests',
      'Signing requests to the CA.',
      tally.count('ca_request_duration_seconds'),
      csr,
    ),
    counter('num_failed_outgoing_requests', 'Signing requests to the CA that failed.', failed, csr),
    counter(
      'num_outgoing_retries',
      'Signing requests to the CA that were sent again.',
      tally.count('ca_retries_total'),
      csr,
    ),
    counter('outgoing_latency', 'Milliseconds spent waiting for the CA, in total.', latencyMs, csr),
    single(
      'istio_agent_cert_expiry_seconds',
      'Seconds until the first certificate expires; negative when it has.',
      untilExpiry,
      {
        resource_name: 'default',
      },
    ),
    counter(
      'num_file_watcher_failures_total',
      'Directory watches that failed.',
      tally.count('file_watch_failures_total'),
    ),
    counter(
      'num_file_secret_failures_total',
      'Certificate files that could not be used.',
      tally.count('file_read_failures_total'),
    ),
    counter(
      'pilot_xds_expired_nonce',
      'SDS requests with a nonce that was not the last one.',
      tally.count('sds_stale_nonces_total'),
    ),
    counter(
      'pilot_total_xds_rejects',
      'SDS responses that the proxy refused.',
      tally.count('sds_nacks_total'),
    ),
    single(
      'istio_agent_startup_duration_seconds',
      'From the start of the process to the first certificate.',
      own.readySeconds,
    ),
    counter('scrapes_total', 'Times that these metrics were read, this one included.', own.scrapes),
  ];
}

/** What an authority that serves others holds. Instants are epoch milliseconds. */
export interface CaFacts {
  readonly version: string;
  readonly runtime: string;
  readonly ready: boolean;
  readonly signerNotAfterAt: number;
  readonly roots: readonly { readonly sha256: string; readonly notAfterAt: number }[];
}

/** The gauges of `keyturn ca serve`. */
export function caGauges({ version, runtime, ready, signerNotAfterAt, roots }: CaFacts): Gauge[] {
  return [
    single('keyturn_build_info', 'Always 1; which version runs on what.', 1, { version, runtime }),
    single(
      'keyturn_ready',
      'Whether /healthz/ready answers yes: whether a certificate could be signed now.',
      ready ? 1 : 0,
    ),
    single(
      'keyturn_ca_signer_not_after_timestamp_seconds',
      'When the certificate that signs expires.',
      signerNotAfterAt / 1000,
    ),
    {
      name: 'keyturn_root_not_after_timestamp_seconds',
      type: 'gauge',
      help: 'When a root of the trust bundle expires.',
      values: roots.map(({ sha256, notAfterAt }) => ({
        labels: { sha256 },
        value: notAfterAt / 1000,
      })),
    },
  ];
}

/** What a webhook holds, as its metrics say it. */
export interface WebhookFacts {
  readonly version: string;
  readonly runtime: string;
  readonly ready: boolean;
  /** Of its root, epoch milliseconds; undefined before there is one. */
  readonly rootNotAfterAt: number | undefined;
}

export function webhookGauges({ version, runtime, ready, rootNotAfterAt }: WebhookFacts): Gauge[] {
  const notAfter = rootNotAfterAt === undefined ? undefined : rootNotAfterAt / 1000;
  return [
    single('keyturn_build_info', 'Always 1; which version runs on what.', 1, { version, runtime }),
    single(
      'keyturn_ready',
      'Whether /healthz/ready answers yes: whether the API server accepts the webhook certificate.',
      ready ? 1 : 0,
    ),
    single(
      'keyturn_webhook_root_not_after_timestamp_seconds',
      "When the root of the webhook's own certificate expires.",
      notAfter,
    ),
  ];
}

/** What an approver does now, as its metrics say it. */
export interface ApproverFacts {
  readonly version: string;
  readonly runtime: string;
  readonly ready: boolean;
  readonly watching: boolean;
  readonly undecided: number;
  readonly stuck: number;
  readonly violations: number;
}

export function approverGauges(facts: ApproverFacts): Gauge[] {
  const { version, runtime, ready, watching, undecided, stuck, violations } = facts;
  return [
    single('keyturn_build_info', 'Always 1; which version runs on what.', 1, { version, runtime }),
    single(
      'keyturn_ready',
      'Whether /healthz/ready answers yes: requests reach the approver, it can decide them, and no violation is open.',
      ready ? 1 : 0,
    ),
    single(
      'keyturn_approver_watching',
      'Whether a watch of requests is open; every few minutes it is not for a moment.',
      watching ? 1 : 0,
    ),
    single('keyturn_approver_undecided_requests', 'Requests that wait for a decision.', undecided),
    single(
      'keyturn_approver_stuck_requests',
      'Requests that could not be decided three times or more.',
      stuck,
    ),
    single(
      'keyturn_approver_open_violations',
      'Requests with a violation that no operator has acknowledged.',
      violations,
    ),
  ];
}

/** The process under Prometheus' customary names: cheap readings only, no timer that would wake an idle machine. */
export async function processGauges(): Promise<Gauge[]> {
  const cpu = process.cpuUsage();
  const memory = process.memoryUsage();
  const counter = (gauge: Gauge): Gauge => ({ ...gauge, type: 'counter' });
  return [
    counter(
      single(
        'process_cpu_seconds_total',
        'User and system CPU time.',
        (cpu.user + cpu.system) / 1e6,
      ),
    ),
    single(
      'process_start_time_seconds',
      'When the process started, seconds since the epoch.',
      performance.timeOrigin / 1000,
    ),
    single('process_resident_memory_bytes', 'Resident memory.', memory.rss),
    single('process_open_fds', 'Open file descriptors.', await openFiles()),
    single('process_max_fds', 'How many file descriptors may be open.', await maxFiles()),
    single('nodejs_heap_size_used_bytes', 'JavaScript heap in use.', memory.heapUsed),
    single('nodejs_heap_size_total_bytes', 'JavaScript heap reserved.', memory.heapTotal),
    single(
      'nodejs_external_memory_bytes',
      'Memory of buffers and other native objects.',
      memory.external,
    ),
    single('nodejs_eventloop_lag_seconds', 'Event loop lag during this scrape.', await loopLag()),
  ];
}

function entries({ refused = [] }: AgentStatus, outcome: 'refused' | 'failed'): number {
  return refused.filter((each) => each.outcome === outcome).length;
}

function single(
  name: string,
  help: string,
  value: number | undefined,
  labels: Record<string, string> = {},
): Gauge {
  return { name, type: 'gauge', help, values: value === undefined ? [] : [{ labels, value }] };
}

function perWorkload<T extends Labelled>(
  name: string,
  help: string,
  workloads: readonly T[],
  read: (workload: T) => number | undefined,
): Gauge {
  const values = workloads.flatMap((each) => {
    const value = read(each);
    return value === undefined ? [] : [{ labels: whose(each), value }];
  });
  return { name, type: 'gauge', help, values };
}

interface Labelled {
  readonly name?: string;
  readonly id: string;
}

/** Of many workloads each has its name too. So there are no more series than workloads, whose number is bounded. */
function whose(workload: Labelled): Record<string, string> {
  return { ...named(workload), id: workload.id };
}

function named({ name }: Labelled): Record<string, string> {
  return name === undefined ? {} : { workload: name };
}

function seconds(iso: string): number;
function seconds(iso: string | undefined): number | undefined;
function seconds(iso: string | undefined): number | undefined {
  return iso === undefined ? undefined : Date.parse(iso) / 1000;
}

/** Undefined where there is no /proc. The descriptor that reads the directory is not counted. */
async function openFiles(): Promise<number | undefined> {
  const files = await readdir('/proc/self/fd').catch(() => undefined);
  return files && files.length - 1;
}

async function maxFiles(): Promise<number | undefined> {
  const limits = await readFile('/proc/self/limits', 'utf8').catch(() => '');
  const soft = /^Max open files\s+(\d+)/m.exec(limits)?.[1];
  return soft === undefined ? undefined : Number(soft);
}

function loopLag(): Promise<number> {
  const start = performance.now();
  return new Promise((resolve) => setImmediate(() => resolve((performance.now() - start) / 1000)));
}
