import { writePem } from '../../agent/base/pem';
import { makeDearCsr } from '../support/certs';
import { liveCa } from '../support/tls-ca';
import { type LoadOrder, type LoadStrangers, runLoad } from './ca-load';
import { startKeyturnCa, unknownCallers } from './ca-subjects';
import { ratio, table } from './report';
import { keep, type Samples, samples, tell } from './samples';

export interface FloodOptions {
  readonly rounds: number;
  readonly windowMs: number;
}

/** One caller with a certificate of the authority, among strangers. */
export interface FloodCell {
  readonly flood: string;
  /** The flood without what makes this one dear; undefined for one of those. */
  readonly without: string | undefined;
  readonly p50Ms: Samples;
  readonly p99Ms: Samples;
  /** The longest delay of the authority's event loop: what a stranger can hold everybody up by. */
  readonly loopMs: Samples;
  /** Answers a second to the strangers. */
  readonly strangers: Samples;
  readonly failures: Readonly<Record<string, number>>;
}

export interface FloodReport {
  readonly runtime: string;
  readonly cells: readonly FloodCell[];
}

interface Flood {
  readonly name: string;
  readonly without?: string;
  readonly strangers?: LoadStrangers;
}

const OPEN = { connections: 4, calls: 100 } as const;
const ANEW = { connections: 16, calls: 1, anew: true } as const;
const floods = (): readonly Flood[] => [
  { name: 'none' },
  { name: 'open connections', strangers: OPEN },
  {
    name: 'open connections, chains of P-521',
    without: 'open connections',
    strangers: { ...OPEN, chain: 'name' },
  },
  {
    name: 'open connections, requests of RSA-8192',
    without: 'open connections',
    strangers: { ...OPEN, requestPem: writePem('CERTIFICATE REQUEST', makeDearCsr()).toString() },
  },
  { name: 'a connection for each call', strangers: ANEW },
  {
    name: 'a connection for each call, chains of P-521',
    without: 'a connection for each call',
    strangers: { ...ANEW, chain: 'name' },
  },
  {
    name: 'a connection for each call, chains of other names',
    without: 'a connection for each call',
    strangers: { ...ANEW, chain: 'others' },
  },
];
const WARM_UP_MS = 1_000;
const MEASURED = ['p50Ms', 'p99Ms', 'loopMs', 'strangers'] as const;

/** What a caller with a certificate waits for its next one, while strangers do what they can to be dear. */
export async function measureFlood({ rounds, windowMs }: FloodOptions): Promise<FloodReport> {
  const ca = await liveCa({ algorithm: 'ecdsa-p256', name: 'bench flood' });
  const subject = await startKeyturnCa(ca, { by: 'keys' }, unknownCallers(1), {
    tellsLoopDelay: true,
  });
  const { address, pid, serverName, rootPem, callers } = subject;
  const order: LoadOrder = {
    address,
    pid,
    serverName,
    rootPem,
    callers,
    certificate: true,
    connections: 1,
    warmUpMs: WARM_UP_MS,
    windowMs,
  };
  const values = new Map<string, number[]>();
  const all = floods();
  const failures = all.map((): Record<string, number> => ({}));
  try {
    for (let round = 0; round < rounds; round += 1) {
      for (const [index, { name, strangers }] of all.entries()) {
        tell(`flood: ${name}, round ${round + 1} of ${rounds}`);
        await subject.loopDelayMs!();
        const result = await runLoad({ ...order, ...(strangers && { strangers }) });
        const loopMs = await subject.loopDelayMs!();
        const measured = {
          ...result,
          loopMs,
          strangers: (result.strangers * 1_000) / (WARM_UP_MS + windowMs),
        };
        for (const what of MEASURED) keep(values, `${what} ${index}`, round, measured[what]);
        for (const [status, count] of Object.entries(result.failures))
          failures[index]![status] = (failures[index]![status] ?? 0) + count;
      }
    }
  } finally {
    await subject.stop();
  }
  const sampled = (what: (typeof MEASURED)[number], index: number) =>
    samples(what, values.get(`${what} ${index}`)!);
  const cells = all.map(({ name, without }, index) => ({
    flood: name,
    without,
    p50Ms: sampled('p50Ms', index),
    p99Ms: sampled('p99Ms', index),
    loopMs: sampled('loopMs', index),
    strangers: sampled('strangers', index),
    failures: failures[index]!,
  }));
  return { runtime: `node ${process.versions.node}`, cells };
}

/** The report as a Markdown table. */
export function printFloodReport({ runtime, cells }: FloodReport): string {
  const rows = cells.map((cell) => {
    const base = cells.find(({ flood }) => flood === cell.without);
    const compared = (what: 'p50Ms' | 'p99Ms') =>
      base ? ratio(cell[what].median, base[what].median) : '';
    return [
      cell.flood,
      cell.strangers.median.toFixed(0),
      `${cell.p50Ms.median.toFixed(1)} ms`,
      compared('p50Ms'),
      `${cell.p99Ms.median.toFixed(1)} ms`,
      compared('p99Ms'),
      `${cell.loopMs.median.toFixed(0)} ms`,
    ];
  });
  const failed = cells.flatMap(({ flood, failures }) =>
    Object.entries(failures).map(
      ([status, count]) => `${flood}: ${count} calls failed with ${status}\n`,
    ),
  );
  return [
    `On ${runtime}: a caller with a certificate, one call at a time, among strangers; medians; ratios to the same flood without what is dear.\n`,
    table(
      [
        'strangers',
        'answers a second to them',
        'median of the caller',
        'ratio',
        '99th percentile',
        'ratio',
        'longest hold of the loop',
      ],
      rows,
    ),
    ...failed,
  ].join('\n');
}
