/** Repeated measurements of one thing. */
export interface Samples {
  readonly name: string;
  readonly median: number;
  readonly min: number;
  readonly rounds: number;
}

/** Rounds below zero warm up caches and are not kept. */
export function keep(
  into: Map<string, number[]>,
  name: string,
  round: number,
  value: number,
): void {
  const values = into.get(name) ?? [];
  into.set(name, values);
  if (round >= 0) values.push(value);
}

/** What was kept under a name. */
export function samples(name: string, values: readonly number[]): Samples {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const median =
    sorted.length % 2 === 1
      ? sorted[Math.floor(middle)]!
      : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { name, median, min: sorted[0]!, rounds: sorted.length };
}

/** Progress, for a person who waits. */
export function tell(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[2K${text}`);
}
