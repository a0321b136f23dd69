import { formatDuration } from '../base/duration';
import { printable } from './report';

/**
 * Rows as columns of equal width, two spaces apart, without trailing spaces.
 *
 * @param rows  The first may be a heading. Undefined and empty cells are written as a dash.
 */
export function table(
  rows: readonly (readonly (string | number | undefined)[])[],
  indent = '',
): string {
  const cells = rows.map((row) =>
    row.map((cell) => (cell === undefined || cell === '' ? '-' : printable(String(cell)))),
  );
  const widths: number[] = [];
  for (const row of cells)
    for (const [column, cell] of row.entries())
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
  return cells
    .map((row) =>
      `${indent}${row.map((cell, column) => cell.padEnd(widths[column]!)).join('  ')}`.trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}

/** Labelled facts, one a line, labels aligned. Undefined facts are left out. */
export function facts(
  pairs: readonly (readonly [label: string, value: string | number | undefined])[],
  indent = '',
): string {
  const known = pairs.filter((pair) => pair[1] !== undefined && pair[1] !== '');
  const width = Math.max(0, ...known.map(([label]) => label.length));
  return known
    .map(([label, value]) => `${indent}${label.padEnd(width)}  ${printable(String(value))}\n`)
    .join('');
}

/** `2026-11-22 20:01:12Z (in 11h42m)`, or `(3m ago)`: an instant beside what it means now. */
export function instant(iso: string | undefined, now: string | number): string | undefined {
  if (iso === undefined) return undefined;
  const away = Date.parse(iso) - (typeof now === 'number' ? now : Date.parse(now));
  const distance = away >= 0 ? `in ${roughly(away)}` : `${roughly(-away)} ago`;
  return `${iso.slice(0, 19).replace('T', ' ')}Z (${distance})`;
}

// Nobody counts years in hours.
function roughly(ms: number): string {
  const days = Math.floor(ms / 86_400_000);
  return days >= 4 ? `${days} days` : formatDuration(ms);
}

/** `1 root`, `2 roots`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** JSON for programs, indented so that people can read it too. */
export function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
