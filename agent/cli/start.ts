import { runCommandLine } from './program';
import { flushOutput, processTerminal } from './terminal';

/** Runs this process's command line and ends the process with its exit code. */
export async function start(): Promise<never> {
  const code = await runCommandLine(process.argv.slice(2), processTerminal());
  await flushOutput();
  process.exit(code);
}
