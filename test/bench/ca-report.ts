import { type CaCell, type CaReport, PROOFS } from './ca-bench';
import { ratio, table } from './report';

/** The report as a Markdown table, and what it lacks. */
export function printCaReport({ runtime, connections, cells, missing }: CaReport): string {
  const peerOf = ({ issuer, proof }: CaCell) =>
    cells.find(
      (other) => other.issuer === issuer && other.proof === proof && other.authority === 'istiod',
    );
  const order = [...cells].sort((a, b) => PROOFS.indexOf(a.proof) - PROOFS.indexOf(b.proof));
  const rows = order.map((cell) => {
    const { issuer, proof, authority, perSecond, p99Ms, perCpuSecond, clientCpu } = cell;
    const peer = peerOf(cell);
    return [
      `${proof}, ${issuer}`,
      authority,
      perSecond.median.toFixed(0),
      peer ? ratio(perSecond.median, peer.perSecond.median) : '',
      `${p99Ms.median.toFixed(1)} ms`,
      peer ? ratio(p99Ms.median, peer.p99Ms.median) : '',
      perCpuSecond.median.toFixed(0),
      peer ? ratio(perCpuSecond.median, peer.perCpuSecond.median) : '',
      `${(100 * clientCpu.median).toFixed(0)} %`,
    ];
  });
  const failed = cells.flatMap(({ issuer, proof, authority, failures }) =>
    Object.entries(failures).map(
      ([status, count]) =>
        `${authority}, ${proof}, ${issuer}: ${count} calls failed with ${status}`,
    ),
  );
  return [
    `On ${runtime}: ${connections} connections, one call at a time in each, interleaved, medians; ratios to istiod.\n`,
    table(
      [
        'callers proven by, issuer',
        'authority',
        'calls a second',
        'ratio',
        '99th percentile',
        'ratio',
        'calls a second of its processor',
        'ratio',
        'load, of one processor',
      ],
      rows,
    ),
    ...failed.map((line) => `${line}\n`),
    ...missing.map((line) => `not measured: ${line}\n`),
  ].join('\n');
}
