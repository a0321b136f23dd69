import { type Labels, METRICS, type MetricName, type Metrics } from '../base/metrics';

/** What was counted under one set of label values. For a counter `count` is all there is. */
export interface Series {
  readonly labels: Readonly<Record<string, string>>;
  count: number;
  /** Sum of the observed values, in the metric's base unit. */
  sum: number;
  /** How many observations fell into each of the metric's buckets, not cumulated; those above the last are in `count` only. */
  readonly buckets: number[];
}

/** More label sets than any table row should have: what comes beyond is counted together, so that nobody can fill memory with names. */
const MAX_SERIES = 64;
const MAX_LABEL_LENGTH = 64;

/** Counts in plain numbers: recording costs a map lookup, needs no library and never grows beyond its bounds. */
export class Counters implements Metrics {
  readonly #series = new Map<MetricName, Map<string, Series>>();

  record<N extends MetricName>(name: N, labels: Labels<N>, value = 1): void {
    const series = this.#find(name, labels);
    series.count += 1;
    if (!Number.isFinite(value)) return;
    series.sum += value;
    const bounds: readonly number[] = bucketsOf(name);
    const bucket = bounds.findIndex((bound) => value <= bound);
    if (bucket >= 0) series.buckets[bucket]! += 1;
  }

  /** Every series of a metric, in the order in which they first appeared. */
  series(name: MetricName): readonly Series[] {
    return [...(this.#series.get(name)?.values() ?? [])];
  }

  /** The number of events of a metric whose labels pass `wanted`. */
  count(name: MetricName, wanted: (labels: Series['labels']) => boolean = () => true): number {
    return this.series(name).reduce(
      (total, each) => (wanted(each.labels) ? total + each.count : total),
      0,
    );
  }

  #find(name: MetricName, given: Readonly<Record<string, string>>): Series {
    let all = this.#series.get(name);
    if (!all) {
      all = new Map();
      this.#series.set(name, all);
    }
    const values = METRICS[name].labels.map((label) =>
      String(given[label]).slice(0, MAX_LABEL_LENGTH),
    );
    const full = all.size >= MAX_SERIES && !all.has(values.join('\0'));
    const kept = full ? values.map(() => 'other') : values;
    const key = kept.join('\0');
    const found = all.get(key);
    if (found) return found;
    const labels = Object.fromEntries(
      METRICS[name].labels.map((label, index) => [label, kept[index]!]),
    );
    const made: Series = { labels, count: 0, sum: 0, buckets: bucketsOf(name).map(() => 0) };
    all.set(key, made);
    return made;
  }
}

/** The upper bounds of a histogram, ascending; none for a counter. */
export function bucketsOf(name: MetricName): readonly number[] {
  const row = METRICS[name];
  return 'buckets' in row ? row.buckets : [];
}
