import { AgentError } from '../base/errors';
import type { Flags } from '../config/sources';
import { refuseDangerousSurroundings } from './environment';
import { plainRunFlags } from './plain-run';
import { report } from './report';
import { type Exit, flushOutput, processTerminal, type Terminal } from './terminal';

/** Runs this process's command line and returns its exit code once every word of the answer has left. */
export async function start(exit: Exit): Promise<number> {
  const argv = process.argv.slice(2);
  const terminal = processTerminal(exit);
  const flags = plainRunFlags(argv);
  const code = flags
    ? await runAgent(flags, terminal)
    : await (await import('./program')).runCommandLine(argv, terminal);
  await flushOutput();
  return code;
}

/** As the command `run`. */
async function runAgent(flags: Flags, terminal: Terminal): Promise<number> {
  try {
    refuseDangerousSurroundings(terminal);
    return await (await import('./run')).run(flags, terminal);
  } catch (caught) {
    return report(AgentError.from(caught), 'text', terminal);
  }
}
