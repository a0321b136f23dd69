/** Every number that the agent counts, in one table. Names are without the `keyturn_` prefix; units are Prometheus base units. */
export const METRICS = {
  renewals_total: {
    type: 'counter',
    help: 'Attempts to obtain a certificate, by outcome (ok or an error code).',
    labels: ['outcome'],
  },
  ca_request_duration_seconds: {
    type: 'histogram',
    help: 'Time that the CA took to answer a signing request.',
    labels: ['ca', 'outcome'],
    buckets: [0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30],
  },
  ca_requests_total: {
    type: 'counter',
    help: 'Signing requests to each of several CAs, by outcome (ok or an error code).',
    labels: ['ca', 'outcome'],
  },
  ca_retries_total: {
    type: 'counter',
    help: 'Signing requests that were sent again after a failure.',
    labels: ['ca'],
  },
  sds_pushes_total: {
    type: 'counter',
    help: 'SDS responses sent, by resource name class (default, ROOTCA, ALL, spiffe, file).',
    labels: ['name'],
  },
  sds_acks_total: {
    type: 'counter',
    help: 'SDS responses that a client accepted.',
    labels: ['name'],
  },
  sds_nacks_total: {
    type: 'counter',
    help: 'SDS responses that a client refused.',
    labels: ['name'],
  },
  sds_stale_nonces_total: {
    type: 'counter',
    help: 'SDS requests ignored because their nonce was not the last one sent.',
    labels: [],
  },
  sds_unknown_names_total: {
    type: 'counter',
    help: 'Names asked for that this agent does not serve.',
    labels: [],
  },
  sds_streams_total: {
    type: 'counter',
    help: 'SDS streams opened since the start, by kind (sotw, delta).',
    labels: ['kind'],
  },
  sds_refused_total: {
    type: 'counter',
    help: 'SDS connections, streams or messages refused, by reason.',
    labels: ['reason'],
  },
  sds_push_duration_seconds: {
    type: 'histogram',
    help: 'From a new certificate to the acknowledgement of a stream.',
    labels: [],
    buckets: [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15],
  },
  workload_api_answers_total: {
    type: 'counter',
    help: 'Answers that the SPIFFE Workload API sent, by method.',
    labels: ['method'],
  },
  workload_api_refusals_total: {
    type: 'counter',
    help: 'Calls of the SPIFFE Workload API that ended with an error, by method and gRPC status.',
    labels: ['method', 'code'],
  },
  file_watch_failures_total: {
    type: 'counter',
    help: 'Directory watches that failed and fell back to polling.',
    labels: [],
  },
  file_read_failures_total: {
    type: 'counter',
    help: 'Certificate files that were unreadable or wrong; the previous ones stay in service.',
    labels: [],
  },
  crl_failures_total: {
    type: 'counter',
    help: 'Certificate revocation lists that could not be fetched or were invalid.',
    labels: [],
  },
  federated_bundle_failures_total: {
    type: 'counter',
    help: 'Bundles of other trust domains that could not be fetched or were invalid.',
    labels: [],
  },
  output_writes_total: {
    type: 'counter',
    help: 'Writes of certificate files, by outcome (ok or an error code).',
    labels: ['outcome'],
  },
  workload_changes_total: {
    type: 'counter',
    help: 'Changes to the list of workloads that were followed, by kind (start, change, stop) and outcome (ok or an error code).',
    labels: ['change', 'outcome'],
  },
  ca_signing_requests_total: {
    type: 'counter',
    help: 'Requests that the CA server decided, by outcome (ok or a gRPC status) and by credential of the caller.',
    labels: ['outcome', 'method'],
  },
  ca_sign_duration_seconds: {
    type: 'histogram',
    help: 'From a whole request to the decision of the CA server.',
    labels: [],
    buckets: [0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15],
  },
  ca_refused_total: {
    type: 'counter',
    help: 'Connections and calls that the CA server ended without a decision, by reason.',
    labels: ['reason'],
  },
  ca_stolen_credentials_total: {
    type: 'counter',
    help: 'One-time tokens, and certificates renewed after their end, that were shown to the CA server with a second key.',
    labels: [],
  },
  webhook_requests_total: {
    type: 'counter',
    help: 'Pods that the webhook decided about, by outcome (injected, unchanged, denied).',
    labels: ['outcome'],
  },
  webhook_request_duration_seconds: {
    type: 'histogram',
    help: "From a whole admission request to the webhook's decision.",
    labels: [],
    buckets: [0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1],
  },
  webhook_refused_total: {
    type: 'counter',
    help: 'Requests to the webhook that were no admission requests, by HTTP status.',
    labels: ['status'],
  },
  approver_decisions_total: {
    type: 'counter',
    help: 'Requests to a Kubernetes signer that the approver decided, by decision (approved, denied) and by the part of the request that it was denied for.',
    labels: ['decision', 'reason'],
  },
  approver_failures_total: {
    type: 'counter',
    help: 'Requests that the approver could not follow or not decide for now (operation), by error code.',
    labels: ['operation', 'code'],
  },
  approver_violations_total: {
    type: 'counter',
    help: 'Certificates that a signer issued otherwise than approved, and approved requests that were changed before, by kind (ca, identity, key, usage, lifetime, denied, unreadable, metadata).',
    labels: ['kind'],
  },
  ca_audit_failures_total: {
    type: 'counter',
    help: 'Decisions that could not be written to the audit log; nothing is issued without.',
    labels: [],
  },
} as const satisfies Record<string, MetricRow>;

interface MetricRow {
  readonly type: 'counter' | 'histogram';
  readonly help: string;
  readonly labels: readonly string[];
  readonly buckets?: readonly number[];
}

export type MetricName = keyof typeof METRICS;
export type Labels<N extends MetricName> = {
  readonly [L in (typeof METRICS)[N]['labels'][number]]: string;
};

/** Where components count. Gauges are not here: they are read from the components' state when somebody scrapes. */
export interface Metrics {
  /** Adds 1 to a counter, or `value` (base unit) to a histogram. */
  record<N extends MetricName>(name: N, labels: Labels<N>, value?: number): void;
}

/** For commands and tests that count nothing. */
export const noMetrics: Metrics = { record: () => undefined };
