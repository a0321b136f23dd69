import type { RotateRequest } from '../admin/control-server';
import type { CommandOptions } from './command';
import { settingOf } from './settings-options';
import type { Terminal } from './terminal';

/** After this, the answer of the agent itself (who is behind) is late too. */
export const ANSWER_MS = 5_000;

/**
 * Asks the running agent at its control socket.
 *
 * @throws AgentError ERR_CONTROL where no agent answers.
 */
export async function askAgent<T>(
  options: Pick<CommandOptions, 'flags'>,
  terminal: Terminal,
  method: 'GET' | 'POST',
  path: string,
  body?: RotateRequest,
  timeoutMs = ANSWER_MS,
): Promise<T> {
  const socket = await settingOf('control-socket', options.flags, terminal);
  const { callControl } = await import('../admin/control-client');
  return callControl<T>(socket, method, path, body, { timeoutMs });
}
