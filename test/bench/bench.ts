import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { measureCas } from './ca-bench';
import { printCaReport } from './ca-report';
import { measureFlood, printFloodReport } from './flood-bench';
import { measureSizes, startAskers } from './forms';
import { measureMemory, measureRotations, measureSigning, measureStart } from './measure';
import { printReport } from './report';
import { bareNode, keyturn, peer } from './subject';
import { measureWorkloads, printWorkloads } from './workloads-bench';

const HELP = `Usage: scripts/bench [--quick] [--output text|json] [--peer COMMAND [--peer-socket PATH]]
       scripts/bench ca [--flood] [--quick] [--output text|json]
       scripts/bench workloads [--quick] [--output text|json]

Measures what ships, in both forms and interleaved in one run, and prints medians as ratios: size, exec to the first secret over SDS, memory
at idle, a rotation until the last of 1, 100 and 1000 streams has it, and certificates that the built-in CA signs. Where Istio's own agent is
there (scripts/peers pilot-agent), it is measured too, with the token that ours has for the same authority.

With ca: CreateCertificate calls a second of keyturn ca serve and of a real istiod, with one key between them, P-256 and RSA-2048, by client
certificate and by token. With --flood: what a caller with a certificate waits among strangers who show dear chains, or ask with dear keys,
and in the same flood without those; KEYTURN_FORM=standalone measures the executable.

With workloads: memory of 1, 10 and 100 workloads in one process, with a client at each, and of Istio's agent, which is a process for each,
where scripts/peers has built it.

  --quick           fewer rounds
  --flood           with ca: the authority among strangers
  --output json     the same numbers for programs
  --peer COMMAND    measures another agent beside it: a shell command in which {socket} stands for the Unix socket to serve SDS on and
                    {dir} for an empty directory
  --peer-socket P   where that agent serves, if it is not told by {socket}
`;

void main();

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      quick: { type: 'boolean', default: false },
      flood: { type: 'boolean', default: false },
      output: { type: 'string', default: 'text' },
      peer: { type: 'string' },
      'peer-socket': { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return void process.stdout.write(HELP);
  if (values.output !== 'text' && values.output !== 'json')
    throw new Error(`--output is text or json, not ${values.output}`);
  const [what, ...rest] = positionals;
  if (rest.length > 0 || (what !== undefined && what !== 'ca' && what !== 'workloads'))
    throw new Error(`what to measure is ca, workloads or nothing, not ${positionals.join(' ')}`);
  if (values.flood && what !== 'ca') throw new Error('--flood goes with ca');
  if (what === 'ca')
    return values.flood
      ? benchFlood(values.quick, values.output)
      : benchCas(values.quick, values.output);
  if (what === 'workloads') return benchWorkloads(values.quick, values.output);
  const caDir = join(mkdtempSync(join(tmpdir(), 'keyturn-bench-')), 'ca');
  const ours = [keyturn('node', caDir), keyturn('standalone', caDir)];
  const askers = await startAskers();
  const all = [
    ...ours,
    ...askers.subjects,
    ...(values.peer === undefined ? [] : [peer(values.peer, values['peer-socket'])]),
  ];
  try {
    const report = {
      runtime: `node ${process.versions.node}`,
      sizes: measureSizes(),
      start: await measureStart(all, values.quick ? 5 : 15),
      memory: await measureMemory(
        [bareNode(), ...all],
        values.quick ? 1 : 3,
        values.quick ? 10_000 : 30_000,
      ),
      rotation: await measureRotations(ours, [1, 100, 1000], values.quick ? 5 : 15),
      signing: await measureSigning(values.quick ? 500 : 2_000, values.quick ? 2 : 5),
      missing: askers.missing,
    };
    process.stdout.write(
      values.output === 'json' ? `${JSON.stringify(report, undefined, 2)}\n` : printReport(report),
    );
  } finally {
    await askers.stop();
    rmSync(join(caDir, '..'), { recursive: true, force: true });
  }
}

async function benchCas(quick: boolean, output: string): Promise<void> {
  const report = await measureCas({
    connections: 32,
    rounds: quick ? 1 : 3,
    windowMs: quick ? 2_000 : 5_000,
    oneTimeTokens: quick ? 500 : 2_000,
  });
  process.stdout.write(
    output === 'json' ? `${JSON.stringify(report, undefined, 2)}\n` : printCaReport(report),
  );
}

async function benchFlood(quick: boolean, output: string): Promise<void> {
  const report = await measureFlood({ rounds: quick ? 1 : 3, windowMs: quick ? 3_000 : 8_000 });
  process.stdout.write(
    output === 'json' ? `${JSON.stringify(report, undefined, 2)}\n` : printFloodReport(report),
  );
}

async function benchWorkloads(quick: boolean, output: string): Promise<void> {
  const report = await measureWorkloads({
    counts: [1, 10, 100],
    rounds: quick ? 1 : 3,
    idleMs: quick ? 8_000 : 12_000,
    others: 3,
  });
  process.stdout.write(
    output === 'json' ? `${JSON.stringify(report, undefined, 2)}\n` : printWorkloads(report),
  );
}
