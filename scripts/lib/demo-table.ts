import { formatDuration } from '../../agent/base/duration';
import type { TrafficReport } from '../../test/support/traffic';

/** One side of the demo as it is now: an agent and the Envoy beside it. */
export interface DemoSide {
  readonly name: string;
  /** Certificates after the first. */
  readonly rotations: number;
  /** Serial that the agent serves, and the one that Envoy holds. */
  readonly served: string;
  readonly held: string;
  readonly expiresAt: number | undefined;
  /** SDS updates that Envoy refused. */
  readonly rejected: number;
}

export interface DemoView {
  readonly sides: readonly DemoSide[];
  readonly traffic: TrafficReport;
  readonly startedAt: number;
  readonly ttl: string;
}

/** The live table, always the same number of lines. */
export function renderTable(view: DemoView): string[] {
  const rows = view.sides.map((side) =>
    [
      `${side.name} Envoy`.padEnd(14),
      String(side.rotations).padStart(9),
      `  ${shortSerial(side.held)}${side.held === side.served ? ' ' : '*'}`.padEnd(24),
      expiry(side).padStart(10),
      String(side.rejected).padStart(9),
    ].join(' '),
  );
  return [
    '',
    `keyturn demo, ${elapsed(view)}: certificates of ${view.ttl}, every request a mutual TLS connection of its own`,
    '',
    `${''.padEnd(14)} rotations   ${'serial in Envoy'.padEnd(21)} valid for   refused`,
    ...rows,
    '',
    `requests ${view.traffic.sent}   failures ${failures(view)}`,
    'Ctrl-C ends it.',
  ];
}

/** The same in one line, for output that is kept. */
export function summarise(view: DemoView): string {
  const rotations = view.sides.reduce((sum, side) => sum + side.rotations, 0);
  const serials = view.sides.map((side) => `${side.name} ${shortSerial(side.held)}`).join(', ');
  return `${elapsed(view)}: ${rotations} rotations, ${view.traffic.sent} requests, ${failures(view)} failures; ${serials}`;
}

function failures(view: DemoView): number {
  return [...view.traffic.failures.values()].reduce((sum, times) => sum + times, 0);
}

function elapsed(view: DemoView): string {
  return formatDuration(Math.round((Date.now() - view.startedAt) / 1_000) * 1_000).replace(
    /^0ms$/,
    '0s',
  );
}

function expiry(side: DemoSide): string {
  return side.expiresAt === undefined
    ? '-'
    : formatDuration(Math.max(0, Math.round((side.expiresAt - Date.now()) / 1_000) * 1_000));
}

function shortSerial(serial: string): string {
  return serial.length > 16 ? `${serial.slice(0, 8)}…${serial.slice(-8)}` : serial;
}
