import { type Command, Option } from 'commander';
import { OUTPUT_FORMATS, type OutputFormat } from './report';
import { settingFlags } from './settings-options';
import type { Terminal } from './terminal';

/** What every command is defined with. */
export interface CommandContext {
  readonly terminal: Terminal;
  /** Is told the exit code of the one command of a command line. */
  readonly done: (exitCode: number) => void;
}

/** The parsed options of a command, by commander's names, and the settings among them by theirs. */
export interface CommandOptions {
  readonly format: OutputFormat;
  readonly given: Readonly<Record<string, unknown>>;
  readonly flags: ReturnType<typeof settingFlags>;
}

/** Gives a command its action, which returns the exit code. Actions load what they need when they run: a command does not pay for the others. */
export function onRun(
  command: Command,
  context: CommandContext,
  run: (
    options: CommandOptions,
    args: readonly (string | readonly string[] | undefined)[],
  ) => Promise<number>,
): Command {
  return command.action(async () => {
    // An option that the parent command has too is read by the parent.
    const given = command.optsWithGlobals();
    const format = given.output === 'json' ? 'json' : 'text';
    context.done(await run({ format, given, flags: settingFlags(given) }, command.processedArgs));
  });
}

/** Adds `--output text|json`, for commands that answer with facts. */
export function withOutput(command: Command): Command {
  return command.addOption(
    new Option('-o, --output <format>', 'For people or for programs')
      .choices(OUTPUT_FORMATS)
      .default('text'),
  );
}
