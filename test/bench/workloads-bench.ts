import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runKeyturn, startDaemon } from '../support/daemon';
import { peerPath } from '../support/peer-path';
import { type PilotAgent, startPilotAgent } from '../support/pilot-agent';
import { ratio, table } from './report';
import { keep, type Samples, samples, tell } from './samples';
import { firstSecret } from './sds-probe';
import { keyturnWith, memoryOf, socketOf } from './subject';

export interface WorkloadsPlan {
  readonly counts: readonly number[];
  readonly rounds: number;
  /** Between the last first secret and the look. */
  readonly idleMs: number;
  /** Processes of Istio's agent, which are measured together. */
  readonly others: number;
}

export interface WorkloadsReport {
  readonly runtime: string;
  /** Kilobytes of RssAnon of the one process, by the number of workloads; least and median. */
  readonly keyturn: readonly {
    readonly workloads: number;
    readonly rssAnon: Samples;
    readonly rss: Samples;
  }[];
  /** Kilobytes of one process of Istio's agent; undefined where it is not built. */
  readonly pilotAgent: { readonly rssAnon: Samples; readonly rss: Samples } | undefined;
}

const PATIENCE_MS = 30_000;

/** Memory at rest with a client at each workload. */
export async function measureWorkloads(plan: WorkloadsPlan): Promise<WorkloadsReport> {
  const dir = mkdtempSync(join(tmpdir(), 'keyturn-bench-'));
  const anon = new Map<string, number[]>();
  const all = new Map<string, number[]>();
  try {
    for (let round = 0; round < plan.rounds; round += 1) {
      for (const count of plan.counts) {
        tell(`memory of ${count} workloads, round ${round + 1} of ${plan.rounds}`);
        const { rssAnon, rss } = await inOneProcess(join(dir, 'ca'), count, plan.idleMs);
        keep(anon, `${count}`, round, rssAnon);
        keep(all, `${count}`, round, rss);
      }
    }
    return {
      runtime: `node ${process.versions.node}`,
      keyturn: plan.counts.map((workloads) => ({
        workloads,
        rssAnon: samples(`${workloads}`, anon.get(`${workloads}`)!),
        rss: samples(`${workloads}`, all.get(`${workloads}`)!),
      })),
      pilotAgent:
        peerPath('pilot-agent') === undefined ? undefined : await measurePilotAgents(plan),
    };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

async function inOneProcess(caDir: string, count: number, idleMs: number) {
  const running = await keyturnWith(caDir, count).start();
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const indexes = Array.from({ length: count }, (_, index) => index);
  const connections = await Promise.all(
    indexes.map((index) => firstSecret(socketOf(running.dir, index), 'default', signal)),
  );
  await pause(idleMs);
  const memory = running.memory();
  for (const connection of connections) connection.close();
  await running.stop();
  return memory;
}

/** Each a process with a certificate of a `keyturn ca serve`, and a client. */
async function measurePilotAgents({
  others,
  idleMs,
}: WorkloadsPlan): Promise<NonNullable<WorkloadsReport['pilotAgent']>> {
  const dir = mkdtempSync(join(tmpdir(), 'keyturn-bench-'));
  // It looks for that name at an address of this machine.
  const serve = [
    'ca',
    'serve',
    '--trust-domain',
    'cluster.local',
    '--ca-dir',
    'ca',
    '--server-names',
    'localhost,istiod.istio-system.svc',
  ];
  const ports = [
    '--listen',
    '127.0.0.1:0',
    '--admin-address',
    '127.0.0.1:0',
    '--log-format',
    'json',
  ];
  const ca = startDaemon({
    dir,
    args: [...serve, ...ports, '--authenticators', 'join-token,client-certificate'],
  });
  const agents: PilotAgent[] = [];
  try {
    const { address } = await ca.event('ca server listening');
    const rootPem = readFileSync(join(dir, 'ca/root-cert.pem'));
    for (let index = 0; index < others; index += 1) {
      tell(`memory of Istio's agent, process ${index + 1} of ${others}`);
      const id = 'spiffe://cluster.local/ns/shop/sa/cart';
      const { stdout } = await runKeyturn(
        ['ca', 'token', 'create', '--ca-dir', 'ca', '--spiffe-id', id],
        { dir },
      );
      const caAddress = String(address).replace(/^127\.0\.0\.1/, 'localhost');
      agents.push(await startPilotAgent({ caAddress, rootPem, token: stdout.trim() }));
    }
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const connections = await Promise.all(
      agents.map(({ sdsSocket }) => firstSecret(sdsSocket, 'default', signal)),
    );
    await pause(idleMs);
    const memories = agents.map(({ pid }) => memoryOf(pid));
    for (const connection of connections) connection.close();
    const of = (read: (memory: ReturnType<typeof memoryOf>) => number) =>
      samples('pilot-agent', memories.map(read));
    return { rssAnon: of(({ rssAnon }) => rssAnon), rss: of(({ rss }) => rss) };
  } finally {
    for (const agent of agents) await agent.stop();
    await ca.stop();
    rmSync(dir, { recursive: true, force: true });
  }
}

/** The report as a Markdown table. Processes of Istio's agent are multiplied. */
export function printWorkloads({ runtime, keyturn, pilotAgent }: WorkloadsReport): string {
  const [one] = keyturn;
  const mb = (kilobytes: number) => `${(kilobytes / 1_024).toFixed(1)} MB`;
  const rows = keyturn.map(({ workloads, rssAnon, rss }) => {
    const more = workloads - one!.workloads;
    const theirs = pilotAgent && pilotAgent.rssAnon.median * workloads;
    return [
      `${workloads}`,
      mb(rssAnon.median),
      mb(rss.median),
      more === 0 ? '' : `${((rssAnon.median - one!.rssAnon.median) / more).toFixed(0)} KB`,
      theirs === undefined ? 'not built' : mb(theirs),
      theirs === undefined ? '' : ratio(rssAnon.median, theirs),
    ];
  });
  const head = [
    'workloads',
    'RssAnon of keyturn',
    'Rss',
    'each further one',
    "RssAnon of Istio's agents",
    'ratio',
  ];
  return `On ${runtime}, at rest, a client at each, medians.\n\n${table(head, rows)}`;
}

function pause(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}
