import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach } from '@jest/globals';
import type { AgentStatus, WorkloadStatus } from '../../agent/admin/agent-view';
import { createMetrics } from '../../agent/admin/metrics';
import { loadConfig } from '../../agent/config/load';
import { type Agent, startAgent } from '../../agent/services/agent';
import { createSdsClient, type SdsClient } from './sds-client';
import { tempDir } from './temp-dir';
import { type LogEvent, testDeps } from './test-deps';

/** A whole agent in this process, on the machine's clock, with its own directory and one SDS client. */
export interface RunningAgent {
  readonly agent: Agent;
  /** Everything of it lives below. */
  readonly dir: string;
  readonly socket: string;
  readonly client: SdsClient;
  readonly events: readonly LogEvent[];
  status(): AgentStatus;
  workload(): WorkloadStatus;
  /** The text of /metrics. */
  metrics(): Promise<string>;
  close(): Promise<void>;
}

const running: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const close of running.splice(0)) await close();
});

/**
 * Starts an agent as `keyturn run` would, from flags and environment. Without a source among them it uses the built-in CA. It is closed
 * after the test.
 *
 * @param make  Called with the agent's directory before the start; returns flags (by name, without dashes) and environment.
 */
export async function runAgent(
  make: (dir: string) => {
    readonly flags?: Readonly<Record<string, string>>;
    readonly env?: Readonly<Record<string, string>>;
  } = () => ({}),
): Promise<RunningAgent> {
  const dir = tempDir();
  const { flags = {}, env = {} } = make(dir);
  const socket = join(dir, 'sds', 'socket');
  const mounted = env.FILE_MOUNTED_CERTS !== undefined;
  const metrics = createMetrics();
  const deps = { ...testDeps(), metrics };
  const loaded = await loadConfig({
    flags: {
      ...(mounted ? {} : { ca: 'builtin', 'ca-dir': join(dir, 'ca') }),
      'sds-socket': socket,
      'control-socket': join(dir, 'control.sock'),
      'admin-address': '127.0.0.1:0',
      ...flags,
    },
    env,
    cwd: dir,
  });
  const agent = await startAgent(loaded, deps, new AbortController().signal);
  const client = createSdsClient(socket);
  const close = async () => {
    client.close();
    await agent.close();
  };
  running.push(close);
  return {
    agent,
    dir,
    socket,
    client,
    events: deps.events,
    status: () => agent.view.status(),
    workload: () => agent.view.status().workloads[0]!,
    metrics: () => metrics.text(agent.view),
    close,
  };
}

/** A directory below `dir`, made. */
export function subdir(dir: string, name: string): string {
  const path = join(dir, name);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  return path;
}
