import type { Samples } from './samples';

export interface Report {
  readonly runtime: string;
  readonly sizes: readonly { readonly name: string; readonly bytes: number }[];
  /** Milliseconds. */
  readonly start: readonly Samples[];
  /** Kilobytes. */
  readonly memory: readonly { readonly rssAnon: Samples; readonly rss: Samples }[];
  /** Milliseconds, named by the number of streams and the form. */
  readonly rotation: readonly Samples[];
  /** Certificates a second, named by the engine. */
  readonly signing: readonly Samples[];
  /** What could not be measured, and what to do about it. */
  readonly missing: readonly string[];
}

/** The report as Markdown tables, which are readable as they are and fit into docs/performance.md. */
export function printReport(report: Report): string {
  const [bareStart] = report.start;
  const [bareMemory] = report.memory;
  const [oneStream] = report.rotation;
  const [firstEngine] = report.signing;
  const ms = (value: number) => `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ms`;
  const mb = (kilobytes: number) => `${(kilobytes / 1_024).toFixed(1)} MB`;
  return [
    `On ${report.runtime}, interleaved, medians.\n`,
    table(
      ['size on disk', 'bytes', 'ratio'],
      report.sizes.map(({ name, bytes }) => [
        name,
        `${(bytes / 1_048_576).toFixed(0)} MB`,
        ratio(bytes, report.sizes[0]!.bytes),
      ]),
    ),
    table(
      ['exec to first secret', 'median', 'least', 'ratio'],
      report.start.map((each) => [
        each.name,
        ms(each.median),
        ms(each.min),
        ratio(each.median, bareStart!.median),
      ]),
    ),
    table(
      ['memory at idle', 'RssAnon', 'Rss', 'ratio of RssAnon', 'ratio of Rss'],
      report.memory.map(({ rssAnon, rss }) => [
        rssAnon.name,
        mb(rssAnon.median),
        mb(rss.median),
        ratio(rssAnon.median, bareMemory!.rssAnon.median),
        ratio(rss.median, bareMemory!.rss.median),
      ]),
    ),
    table(
      ['rotation to the last of', 'median', 'least', 'ratio'],
      report.rotation.map((each) => [
        each.name,
        ms(each.median),
        ms(each.min),
        ratio(each.median, oneStream!.median),
      ]),
    ),
    table(
      ['built-in CA, engine', 'certificates a second', 'ratio'],
      report.signing.map((each) => [
        each.name,
        each.median.toFixed(0),
        ratio(each.median, firstEngine!.median),
      ]),
    ),
    ...report.missing.map((line) => `not measured: ${line}\n`),
  ].join('\n');
}

/** How many times `base` it is. */
export function ratio(value: number, base: number): string {
  return `${(value / base).toFixed(2)} x`;
}

/** A Markdown table, readable as it is. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => row[column]!.length)),
  );
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join(' | ')} |`;
  const rule = `|${widths.map((width, column) => (column === 0 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`;
  return `${[line(head), rule, ...rows.map(line)].join('\n')}\n`;
}
