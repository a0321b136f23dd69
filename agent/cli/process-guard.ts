import { writeSync } from 'node:fs';
import { AgentError } from '../base/errors';
import { causeText } from '../base/log';
import { EXIT_CODES } from './exit-code';
import type { Exit } from './terminal';

/** Tells of a broken invariant that is about to end the process. */
type LastWords = (event: string, error: AgentError, stack: readonly string[]) => void;

let lastWords: LastWords = (event, error) =>
  writeSync(2, `keyturn: error: ${event}: ${causeText(error)}\nkeyturn: hint: ${error.hint}\n`);

/**
 * To be called before anything else runs: a signal must not open Node's inspector in a process that holds keys, and a bug must end it at
 * once and loudly rather than leave half an agent.
 */
export function guardProcess(exit: Exit): void {
  // Whatever we make, we can use ourselves: a umask that takes the owner's own rights would leave directories that nobody can enter.
  process.umask(process.umask() & 0o077);
  // Node's own handler of SIGUSR1 opens a debugger port; a listener of ours takes its place.
  process.on('SIGUSR1', () => undefined);
  process.on('SIGUSR2', () => undefined);
  process.on('uncaughtException', (caught) => endWith('uncaught exception', caught, exit));
  process.on('unhandledRejection', (caught) => endWith('unhandled rejection', caught, exit));
}

/** Lets the agent's log have the last words. */
export function tellLastWordsTo(listener: LastWords): void {
  lastWords = listener;
}

function endWith(event: string, caught: unknown, exit: Exit): never {
  try {
    // What is no error could be anything, a secret too: it is not printed.
    const error = new AgentError(
      'ERR_BUG',
      caught instanceof Error ? causeText(caught) : `a ${typeof caught} was thrown`,
      {
        hint: 'report this bug of keyturn with the lines above',
      },
    );
    lastWords(event, error, frames(caught));
  } catch {
    // The exit code must come whatever happens to the words.
  }
  return exit(EXIT_CODES.ERR_BUG);
}

/** The places of a stack, without the message that heads it. */
function frames(caught: unknown): string[] {
  if (!(caught instanceof Error) || typeof caught.stack !== 'string') return [];
  return caught.stack
    .split('\n')
    .filter((line) => /^\s+at /.test(line))
    .slice(0, 12)
    .map((line) => line.trim());
}
