import { Argument, type Command } from 'commander';
import { type CommandContext, onRun } from './command';

const SHELLS = ['bash', 'zsh', 'fish'] as const;

/** `keyturn completion`. */
export function addCompletion(program: Command, context: CommandContext): void {
  const command = program
    .command('completion')
    .summary('Print a script that completes commands in a shell')
    .description('Print a script that completes commands, flags and values of keyturn in a shell.')
    .addArgument(new Argument('<shell>', 'The shell').choices(SHELLS))
    .addHelpText(
      'after',
      `
Examples:
  source <(keyturn completion bash)                                  in ~/.bashrc
  keyturn completion zsh > "\${fpath[1]}/_keyturn"                     once
  keyturn completion fish > ~/.config/fish/completions/keyturn.fish   once`,
    );
  onRun(command, context, async (_, [shell]) => {
    const { completionModel } = await import('./completion-model');
    const { completionScript } = await import('./completion-scripts');
    context.terminal.out(
      completionScript(shell as (typeof SHELLS)[number], completionModel(program)),
    );
    return 0;
  });
}
