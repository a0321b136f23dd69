import type { Registry } from 'prom-client';
import { METRICS, type MetricName, type Metrics } from '../base/metrics';
import type { AgentView } from './agent-view';
import { bucketsOf, Counters } from './counters';
import { agentGauges, type Gauge, processGauges, upstreamGauges } from './gauges';
import { loadPromClient, type Prom } from './prom-client';

/** Counts for the whole agent, and writes it all down for Prometheus. */
export interface AgentMetrics extends Metrics {
  /** Of what `text` returns. */
  readonly contentType: string;
  /**
   * Every metric in Prometheus' text format, read from the agent's state at this moment. prom-client is loaded by the first call: an agent
   * that nobody scrapes never pays for it.
   */
  text(view: AgentView): Promise<string>;
  /** What was counted, with these; for a process that is no agent. */
  textWith(gauges: readonly Gauge[]): Promise<string>;
}

export function createMetrics(): AgentMetrics {
  const tally = new Counters();
  let scrapes = 0;
  let readySeconds: number | undefined;
  return {
    contentType: 'text/plain; version=0.0.4; charset=utf-8',
    record: (name, labels, value) => {
      tally.record(name, labels, value);
      // Since the start of the process: what upstream calls its startup duration.
      if (name === 'renewals_total' && 'outcome' in labels && labels.outcome === 'ok')
        readySeconds ??= performance.now() / 1000;
    },
    text: async (view) => {
      scrapes += 1;
      const status = view.status();
      return exposition(tally, [
        ...agentGauges(status, view.workloads()),
        ...upstreamGauges(status, tally, { scrapes, readySeconds }),
      ]);
    },
    textWith: (gauges) => exposition(tally, gauges),
  };
}

async function exposition(tally: Counters, gauges: readonly Gauge[]): Promise<string> {
  const prom = await loadPromClient();
  const registry = new prom.Registry();
  for (const name of Object.keys(METRICS) as MetricName[]) addCounted(prom, registry, tally, name);
  for (const gauge of [...gauges, ...(await processGauges())]) addGauge(prom, registry, gauge);
  return registry.metrics();
}

function addCounted(prom: Prom, registry: Registry, tally: Counters, name: MetricName): void {
  const { type, help, labels } = METRICS[name];
  const config = { name: `keyturn_${name}`, help, labelNames: [...labels], registers: [registry] };
  if (type === 'counter') {
    const counter = new prom.Counter(config);
    for (const series of tally.series(name)) counter.inc(series.labels, series.count);
    return;
  }
  const histogram = new prom.Histogram({ ...config, buckets: [...bucketsOf(name)] });
  // A prom-client histogram only learns by observing; ours hands over what was tallied.
  Object.assign(histogram, {
    getForPromString: async () => ({
      name: config.name,
      help,
      type,
      values: tally.series(name).flatMap((each) => cumulated(name, each)),
    }),
  });
}

function cumulated(name: MetricName, series: ReturnType<Counters['series']>[number]) {
  const metric = `keyturn_${name}`;
  let below = 0;
  const buckets = bucketsOf(name).map((bound, index) => {
    below += series.buckets[index]!;
    return {
      metricName: `${metric}_bucket`,
      labels: { le: String(bound), ...series.labels },
      value: below,
    };
  });
  return [
    ...buckets,
    {
      metricName: `${metric}_bucket`,
      labels: { le: '+Inf', ...series.labels },
      value: series.count,
    },
    { metricName: `${metric}_sum`, labels: series.labels, value: series.sum },
    { metricName: `${metric}_count`, labels: series.labels, value: series.count },
  ];
}

function addGauge(prom: Prom, registry: Registry, gauge: Gauge): void {
  // prom-client would write 0 for a gauge without values, which is a claim; nothing is known, so nothing is said.
  if (gauge.values.length === 0) return;
  const labelNames = Object.keys(gauge.values[0]?.labels ?? {});
  const config = { name: gauge.name, help: gauge.help, labelNames, registers: [registry] };
  if (gauge.type === 'counter') {
    const counter = new prom.Counter(config);
    for (const { labels, value } of gauge.values) counter.inc(labels, value);
  } else {
    const made = new prom.Gauge(config);
    for (const { labels, value } of gauge.values) made.set(labels, value);
  }
}
