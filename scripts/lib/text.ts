import { formatDuration } from '../../agent/base/duration';

/** `20:01:12`, local time, of an ISO instant. */
export function clockText(instant: unknown): string {
  return new Date(String(instant)).toLocaleTimeString('en-GB');
}

/** `2026-11-22 20:01:12`, local time. */
export function dateText(instant: string): string {
  return new Date(instant).toLocaleString('sv-SE');
}

/** The time from one ISO instant to another, e.g. `11h42m`. */
export function spanText(from: string, to: string): string {
  return formatDuration(Math.max(0, Date.parse(to) - Date.parse(from)));
}
