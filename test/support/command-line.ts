import { runCommandLine } from '../../agent/cli/program';
import type { Terminal } from '../../agent/cli/terminal';

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What a command line is given besides its words. */
export interface CommandSurroundings {
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: string | Uint8Array;
  readonly columns?: number;
  readonly runtimeSwitches?: readonly string[];
}

/** Runs a command line of keyturn in this process. */
export async function keyturn(
  argv: readonly string[],
  around: CommandSurroundings,
): Promise<CommandResult> {
  let [stdout, stderr] = ['', ''];
  const terminal: Terminal = {
    out: (text) => {
      stdout += text;
    },
    write: async (text) => {
      stdout += text;
    },
    err: (text) => {
      stderr += text;
    },
    env: { ...around.env },
    runtimeSwitches: around.runtimeSwitches ?? [],
    ignoredVariables: [],
    cwd: around.cwd,
    columns: around.columns ?? 100,
    exit: (code) => {
      throw new Error(`the command would have exited with ${code}`);
    },
    readStdin: async (limit) => Buffer.from(around.stdin ?? '').subarray(0, limit + 1),
  };
  const code = await runCommandLine(argv, terminal);
  return { code, stdout, stderr };
}
