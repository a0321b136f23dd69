import type { Command } from 'commander';
import type { AgentStatus } from '../admin/agent-view';
import { systemClock } from '../base/clock';
import { parseDuration } from '../base/duration';
import { AgentError } from '../base/errors';
import { askAgent } from './ask-agent';
import { type CommandContext, type CommandOptions, onRun } from './command';
import { addSettings } from './settings-options';
import type { Terminal } from './terminal';

const NOT_READY = 75;
const ASK_AGAIN_MS = 250;

/** `keyturn healthcheck`. */
export function addHealthcheck(program: Command, context: CommandContext): void {
  const command = addSettings(program.command('healthcheck'), ['control-socket', 'config'])
    .summary('Exit 0 where the agent is ready')
    .description(
      'Ask the running agent whether it is ready, as a probe for images without curl. Exits 0 where it is, 75 where it is not, 69 where no agent answers.',
    );
  onRun(command, context, async (options) => {
    const { ready, reasons } = await statusOf(options, context.terminal);
    if (!ready) context.terminal.err(`not ready: ${reasons.join('; ')}\n`);
    return ready ? 0 : NOT_READY;
  });
}

/** `keyturn wait`. */
export function addWait(program: Command, context: CommandContext): void {
  const command = addSettings(program.command('wait'), ['control-socket', 'config'])
    .summary('Wait until the agent is ready')
    .description(
      'Wait until the running agent is ready, or one is started and becomes ready: for postStart hooks and scripts. Exits 75 where it is not by then.',
    )
    .option('--timeout <duration>', 'How long to wait', '60s')
    .addHelpText('after', '\nExamples:\n  keyturn wait --timeout 30s && exec envoy -c envoy.json');
  onRun(command, context, async (options) => {
    const timeoutMs = parseDuration(String(options.given.timeout), 'flag --timeout');
    return waitUntilReady(options, context.terminal, timeoutMs);
  });
}

async function waitUntilReady(
  options: CommandOptions,
  terminal: Terminal,
  timeoutMs: number,
): Promise<number> {
  const untilAt = systemClock.now() + timeoutMs;
  for (;;) {
    const reason = await notReady(options, terminal);
    if (reason === undefined) return 0;
    if (systemClock.now() >= untilAt) {
      terminal.err(`not ready: ${reason}\n`);
      return NOT_READY;
    }
    await systemClock.sleepUntil(
      Math.min(untilAt, systemClock.now() + ASK_AGAIN_MS),
      new AbortController().signal,
    );
  }
}

/** Why the agent is not ready; no agent is a reason as well. */
async function notReady(options: CommandOptions, terminal: Terminal): Promise<string | undefined> {
  try {
    const { ready, reasons } = await statusOf(options, terminal);
    return ready ? undefined : reasons.join('; ');
  } catch (caught) {
    if (caught instanceof AgentError && caught.code === 'ERR_CONTROL') return caught.message;
    throw caught;
  }
}

function statusOf(options: CommandOptions, terminal: Terminal): Promise<AgentStatus> {
  return askAgent<AgentStatus>(options, terminal, 'GET', '/status');
}
