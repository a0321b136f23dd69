import { writeSync } from 'node:fs';
import { AgentError } from '../base/errors';
import { type IgnoredVariable, neutraliseEnvironment, type Surroundings } from './environment';
import { EXIT_CODES } from './exit-code';

/** Ends the process on the spot, with whatever is still under way in it. */
export type Exit = (code: number) => never;

/** Everything of the process that commands touch, so that tests can run them in process. */
export interface Terminal extends Surroundings {
  /** Standard output: a command's answer and nothing else. */
  readonly out: (text: string) => void;
  /** As `out`, resolved when the kernel has it; rejected where nobody reads any more, which does not end the process. */
  readonly write: (text: string) => Promise<void>;
  /** Standard error: what went wrong, and logs. One call is one or more whole lines. */
  readonly err: (text: string) => void;
  /** What was taken out of `env`. */
  readonly ignoredVariables: readonly IgnoredVariable[];
  readonly cwd: string;
  /** For help; at most 100 are used. */
  readonly columns: number;
  /** Standard input to its end, at most `limit` bytes and one more. */
  readonly readStdin: (limit: number) => Promise<Uint8Array>;
  /** For those who cannot wait: a command otherwise returns its exit code. */
  readonly exit: Exit;
}

/** @throws AgentError ERR_INPUT where somebody has removed it under the shell that called us. */
function workingDirectory(): string {
  try {
    return process.cwd();
  } catch (cause) {
    throw new AgentError('ERR_INPUT', 'the working directory has been removed', {
      hint: 'cd to one that exists',
      cause,
    });
  }
}

/** The real one. Whoever closes our standard output, as `| head` does, ends the command quietly. */
export function processTerminal(exit: Exit): Terminal {
  let listening = false;
  const ignoredVariables = neutraliseEnvironment(process.env);
  return {
    out: (text) => {
      if (!listening) process.stdout.on('error', (error) => onClosed(error, exit));
      listening = true;
      process.stdout.write(text);
    },
    write: (text) =>
      new Promise((done, failed) => {
        if (!listening) process.stdout.on('error', () => undefined);
        listening = true;
        process.stdout.write(text, (error) => (error ? failed(error) : done()));
      }),
    err: (text) => writeAll(2, text),
    exit,
    env: process.env,
    runtimeSwitches: process.execArgv,
    ignoredVariables,
    get cwd() {
      return workingDirectory();
    },
    // Asked only where help is printed; loading the stream for every start costs time.
    get columns() {
      return process.stdout.columns ?? 100;
    },
    readStdin: async (limit) => {
      const chunks: Buffer[] = [];
      let length = 0;
      for await (const chunk of process.stdin) {
        chunks.push(chunk);
        length += chunk.length;
        if (length > limit) break;
      }
      return Buffer.concat(chunks).subarray(0, limit + 1);
    },
  };
}

/** Resolves when everything written to standard output has left, so that an exit loses nothing and hides no failure. */
export async function flushOutput(): Promise<void> {
  // Where nothing was written, a closed standard output is no failure; where something was, `onClosed` listens too.
  process.stdout.on('error', () => undefined);
  await new Promise<void>((resolve) => process.stdout.write('', () => resolve()));
  // A failed write is told one turn later.
  await new Promise((resolve) => setImmediate(resolve));
}

function onClosed(error: NodeJS.ErrnoException, exit: Exit): never {
  if (error.code === 'EPIPE') return exit(0);
  writeAll(2, `keyturn: error: write standard output: ${error.message}\n`);
  return exit(EXIT_CODES.ERR_OUTPUT);
}

/** Writes without the machinery of streams. A reader that is gone or does not read must not stop the agent: the line is lost then. */
function writeAll(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  try {
    for (let written = 0; written < bytes.length; ) written += writeSync(fd, bytes, written);
  } catch {
    // Nobody is left to be told.
  }
}
