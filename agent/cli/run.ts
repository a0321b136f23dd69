import { AgentError } from '../base/errors';
import type { Logger } from '../base/log';
import type { LoadedConfig } from '../config/config';
import { loadConfig } from '../config/load';
import { defaultedHalf } from '../config/rules';
import type { Flags } from '../config/sources';
import { formatSpiffeId } from '../identity/spiffe-id';
import { type Agent, type AgentDeps, startAgent } from '../services/agent';
import { runDaemon } from './daemon';
import type { Terminal } from './terminal';

/** As the keeper's own floor: never more than one signing request a second. */
const SIGHUP_INTERVAL_MS = 1_000;

/**
 * `keyturn run`: the agent, until a signal ends it.
 *
 * @returns the exit code.
 * @throws  AgentError where it cannot start.
 */
export async function run(flags: Flags, terminal: Terminal): Promise<number> {
  const loaded = await loadConfig({ flags, env: terminal.env, cwd: terminal.cwd });
  const { logLevel, logFormat, id, ca, workloads } = loaded.config;
  return runDaemon(
    {
      name: 'agent',
      scope: 'agent',
      logLevel,
      logFormat,
      facts:
        workloads === undefined
          ? { id: id && formatSpiffeId(id), ca: ca.join(',') }
          : { workloads },
      start: async (deps, stopping) => {
        warnOfDefaults(loaded, deps.log);
        const agent = await startAgent(loaded, deps, stopping);
        return { onHangup: hangup(agent, deps), health: agent.health, close: () => agent.close() };
      },
    },
    terminal,
  );
}

/** Half an identity is seldom meant: the default that fills it up is said where the log begins. */
function warnOfDefaults({ settings, config }: LoadedConfig, log: Logger): void {
  const missing = config.id && config.workloads === undefined ? defaultedHalf(settings) : undefined;
  if (missing)
    log.warn('identity is partly a default', {
      id: formatSpiffeId(config.id!),
      setting: missing,
      hint: `set ${missing}`,
    });
}

/** Reads the list of workloads again at each SIGHUP, or renews where there is none; but no more often than once a second: those that come meanwhile are one wish. */
function hangup(agent: Agent, { clock, log }: Pick<AgentDeps, 'clock' | 'log'>): () => void {
  let wished = false;
  let busy = false;
  const work = async () => {
    for (busy = true; wished; ) {
      wished = false;
      await (agent.reload ? agent.reload() : rotate(agent, log));
      await clock.sleepUntil(clock.now() + SIGHUP_INTERVAL_MS);
    }
    busy = false;
  };
  return () => {
    wished = true;
    if (!busy) void work();
  };
}

async function rotate(agent: Agent, log: Logger): Promise<void> {
  try {
    await agent.view.rotate({ wait: false, reason: 'SIGHUP' }, new AbortController().signal);
  } catch (caught) {
    log.warn('renewal by SIGHUP failed', { cause: AgentError.from(caught) });
  }
}
