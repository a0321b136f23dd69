import { runCommandLine } from './program';
import { type Exit, flushOutput, processTerminal } from './terminal';

/** Runs this process's command line and returns its exit code once every word of the answer has left. */
export async function start(exit: Exit): Promise<number> {
  const code = await runCommandLine(process.argv.slice(2), processTerminal(exit));
  await flushOutput();
  return code;
}
