import type { AgentError } from '../base/errors';
import { causeText } from '../base/log';
import { EXIT_CODES } from './exit-code';
import type { Terminal } from './terminal';

/** How answers and errors are written: text for people, JSON for programs, with the same facts. */
export const OUTPUT_FORMATS = ['text', 'json'] as const;
export type OutputFormat = (typeof OUTPUT_FORMATS)[number];

/**
 * Tells on standard error what went wrong; standard output stays the answer's. Of several problems each has its own lines.
 *
 * @returns the exit code.
 */
export function report(error: AgentError, format: OutputFormat, terminal: Terminal): number {
  const problems =
    error.cause instanceof AggregateError ? (error.cause.errors as AgentError[]) : [error];
  if (format === 'json') {
    const errors = problems.map((each) => ({
      code: each.code,
      message: words(each),
      ...(each.hint !== undefined && { hint: each.hint }),
    }));
    terminal.err(`${JSON.stringify({ errors })}\n`);
  } else {
    terminal.err(problems.map(paragraph).join(''));
  }
  return EXIT_CODES[error.code];
}

function paragraph(error: AgentError): string {
  const hint = error.hint === undefined ? '' : `keyturn: hint: ${printable(error.hint)}\n`;
  return `keyturn: error: ${printable(words(error))}\n${hint}`;
}

/** The message with what caused it, but for a system error, which our message has put into words already. */
function words(error: AgentError): string {
  const ofSystem = error.cause instanceof Error && 'syscall' in error.cause;
  return ofSystem ? error.message : causeText(error);
}

/** Foreign text must not steer a terminal. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, (character) =>
    JSON.stringify(character)
      .slice(1, -1)
      .replace(/^([\x7f-\x9f])$/, '?'),
  );
}
