import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { measureMemory, measureRotation, measureSigning, measureStart } from './measure';
import { printReport } from './report';
import { bareNode, keyturn, peer } from './subject';

const HELP = `Usage: scripts/bench [--quick] [--output text|json] [--peer COMMAND [--peer-socket PATH]]

Measures what ships, interleaved in one run, and prints medians as ratios: exec to the first secret over SDS against a bare start of the
same runtime, memory at idle, a rotation until the last of 1, 100 and 1000 streams has it, and certificates that the built-in CA signs.

  --quick           fewer rounds
  --output json     the same numbers for programs
  --peer COMMAND    measures another agent beside it: a shell command in which {socket} stands for the Unix socket to serve SDS on and
                    {dir} for an empty directory
  --peer-socket P   where that agent serves, if it is not told by {socket}
`;

void main();

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      output: { type: 'string', default: 'text' },
      peer: { type: 'string' },
      'peer-socket': { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return void process.stdout.write(HELP);
  if (values.output !== 'text' && values.output !== 'json') throw new Error(`--output is text or json, not ${values.output}`);
  const caDir = join(mkdtempSync(join(tmpdir(), 'keyturn-bench-')), 'ca');
  const ours = keyturn(caDir);
  const others = values.peer === undefined ? [] : [peer(values.peer, values['peer-socket'])];
  try {
    const report = {
      runtime: `node ${process.versions.node}`,
      start: await measureStart([ours, ...others], values.quick ? 5 : 15),
      memory: await measureMemory([bareNode(), ours, ...others], values.quick ? 1 : 3, values.quick ? 7_000 : 10_000),
      rotation: await measureRotation(ours, [1, 100, 1000], values.quick ? 5 : 15),
      signing: await measureSigning(values.quick ? 500 : 2_000, values.quick ? 2 : 5),
    };
    process.stdout.write(values.output === 'json' ? `${JSON.stringify(report, undefined, 2)}\n` : printReport(report));
  } finally {
    rmSync(join(caDir, '..'), { recursive: true, force: true });
  }
}
