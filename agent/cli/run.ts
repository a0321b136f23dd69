import { type Agent, startAgent } from '../agent';
import { AgentError } from '../base/errors';
import type { Logger } from '../base/log';
import { loadConfig } from '../config/load';
import type { Flags } from '../config/sources';
import { formatSpiffeId } from '../identity/spiffe-id';
import { runDaemon } from './daemon';
import { refuseDangerousEnvironment } from './environment';
import type { Terminal } from './terminal';

/**
 * `keyturn run`: the agent, until a signal ends it.
 *
 * @returns the exit code.
 * @throws  AgentError where it cannot start.
 */
export async function run(flags: Flags, terminal: Terminal): Promise<number> {
  refuseDangerousEnvironment(terminal.env);
  const loaded = await loadConfig({ flags, env: terminal.env, cwd: terminal.cwd });
  const { logLevel, logFormat, id, ca } = loaded.config;
  return runDaemon(
    {
      name: 'agent',
      scope: 'agent',
      logLevel,
      logFormat,
      facts: { id: id && formatSpiffeId(id), ca: ca.join(',') },
      start: async (deps) => {
        const agent = await startAgent(loaded, deps);
        return { onHangup: () => rotate(agent, deps.log), close: () => agent.close() };
      },
    },
    terminal,
  );
}

function rotate(agent: Agent, log: Logger): void {
  agent.view.rotate({ wait: false, reason: 'SIGHUP' }, new AbortController().signal).catch((caught: unknown) => {
    log.warn('renewal asked for by SIGHUP failed', { cause: AgentError.from(caught) });
  });
}
