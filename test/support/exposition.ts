/** One sample of a Prometheus text exposition. */
export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Family {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly samples: Sample[];
}

/**
 * Reads the text format strictly, as `promtool check metrics` would: HELP and TYPE once before the samples of their family, no sample
 * outside a family, no series twice, labels and values well formed, histograms cumulative and ending in +Inf.
 *
 * @see https://prometheus.io/docs/instrumenting/exposition_formats/
 */
export function parseExposition(text: string): Map<string, Family> {
  if (!text.endsWith('\n')) throw new Error('the last line has no newline');
  const families = new Map<string, Family>();
  const seen = new Set<string>();
  let help: { name: string; text: string } | undefined;
  let family: Family | undefined;
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const helped = /^# HELP ([a-zA-Z_:][\w:]*) (.+)$/.exec(line);
    if (helped) {
      help = { name: helped[1]!, text: helped[2]! };
      continue;
    }
    const typed = /^# TYPE ([a-zA-Z_:][\w:]*) (counter|gauge|histogram)$/.exec(line);
    if (typed) {
      if (help?.name !== typed[1]) throw new Error(`no help before ${line}`);
      if (families.has(typed[1]!)) throw new Error(`family twice: ${line}`);
      family = { name: typed[1]!, type: typed[2]!, help: help!.text, samples: [] };
      families.set(family.name, family);
      continue;
    }
    const sample = parseSample(line);
    if (!family || !belongs(sample.name, family))
      throw new Error(`sample outside its family: ${line}`);
    const key = `${sample.name}${JSON.stringify(Object.entries(sample.labels).sort())}`;
    if (seen.has(key)) throw new Error(`series twice: ${line}`);
    seen.add(key);
    family.samples.push(sample);
  }
  for (const each of families.values()) if (each.type === 'histogram') checkHistogram(each);
  return families;
}

function belongs(sample: string, family: Family): boolean {
  if (family.type !== 'histogram') return sample === family.name;
  return ['_bucket', '_sum', '_count'].some((suffix) => sample === family.name + suffix);
}

function parseSample(line: string): Sample {
  const parts = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (-?[\d.]+(?:e[+-]?\d+)?|\+Inf|-Inf|Nan)$/.exec(
    line,
  );
  if (!parts) throw new Error(`not a sample: ${line}`);
  const labels: Record<string, string> = {};
  let rest = parts[2] ?? '';
  while (rest !== '') {
    const label = /^([a-zA-Z_]\w*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/.exec(rest);
    if (!label) throw new Error(`bad labels: ${line}`);
    if (label[1]! in labels) throw new Error(`label twice: ${line}`);
    labels[label[1]!] = label[2]!;
    rest = rest.slice(label[0].length);
  }
  return { name: parts[1]!, labels, value: Number(parts[3] === '+Inf' ? 'Infinity' : parts[3]) };
}

function checkHistogram(family: Family): void {
  const last = new Map<string, Sample>();
  for (const sample of family.samples.filter((each) => each.name.endsWith('_bucket'))) {
    const { le, ...labels } = sample.labels;
    if (le === undefined) throw new Error(`bucket without le: ${family.name}`);
    const key = JSON.stringify(labels);
    const before = last.get(key);
    if (before && before.value > sample.value)
      throw new Error(`buckets are not cumulative: ${family.name}`);
    last.set(key, sample);
  }
  for (const [key, sample] of last) {
    const count = family.samples.find(
      (each) => each.name === `${family.name}_count` && JSON.stringify(each.labels) === key,
    );
    if (sample.labels.le !== '+Inf' || count?.value !== sample.value)
      throw new Error(`+Inf is not the count: ${family.name}`);
  }
}
