import { invalid } from './errors';

const UNIT_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};
const MAX_TEXT = 32;
/** A century: nothing here is meant to last longer, and sums of such values stay exact. */
const MAX_MS = 100 * 365 * UNIT_MS.d!;

/**
 * Reads `24h`, `1h30m`, `250ms`, `1.5h`, `7d`, as Go writes durations plus `d`. A bare number is refused: its unit would be a guess.
 *
 * @param field  What is being read, for the error, e.g. `--ttl`.
 * @returns      Milliseconds, a whole number, 0 <= n <= a century.
 * @throws       AgentError ERR_CONFIG.
 */
export function parseDuration(text: string, field: string): number {
  const refuse = (rule: string) =>
    invalid('ERR_CONFIG', field, rule, {
      hint: 'write a number and a unit, e.g. 24h, 90m, 1h30m, 250ms, 7d',
    });
  if (text.length === 0) throw refuse('must not be empty');
  if (text.length > MAX_TEXT) throw refuse(`must not be longer than ${MAX_TEXT} characters`);
  if (text === '0') return 0;
  let totalMs = 0;
  let rest = text;
  while (rest.length > 0) {
    const part = /^(\d{1,15}(?:\.\d{1,9})?)(ms|s|m|h|d)/.exec(rest);
    if (!part) throw refuse(`"${text}" is not a duration`);
    totalMs += Number(part[1]) * UNIT_MS[part[2]!]!;
    rest = rest.slice(part[0].length);
  }
  if (totalMs > MAX_MS) throw refuse('must not be longer than 100 years');
  return Math.round(totalMs);
}

/** The inverse of `parseDuration`, at most two units: `1d 2h` is written `26h`, as operators of certificates count hours. */
export function formatDuration(ms: number): string {
  if (ms < 0) return `-${formatDuration(-ms)}`;
  if (ms < 1_000) return `${Math.round(ms)}ms`;
  const seconds = Math.round(ms / 1_000);
  const hours = Math.floor(seconds / 3_600);
  const minutes = Math.floor((seconds % 3_600) / 60);
  if (hours >= 1_000 && hours % 24 === 0) return `${hours / 24}d`;
  if (hours > 0) return minutes > 0 ? `${hours}h${minutes}m` : `${hours}h`;
  if (minutes > 0) return seconds % 60 > 0 ? `${minutes}m${seconds % 60}s` : `${minutes}m`;
  return ms < 10_000 && ms % 1_000 !== 0 ? `${(ms / 1_000).toFixed(1)}s` : `${seconds}s`;
}
