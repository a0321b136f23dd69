import type { Command } from 'commander';
import { oneError, readSettings } from '../config/load';
import { SETTING_NAMES } from '../config/options';
import { type CommandContext, onRun, withOutput } from './command';
import { json, table } from './render';
import { report } from './report';
import { addSettings, ENVIRONMENT_HELP } from './settings-options';

/** `keyturn config show`, and `config docs` for the README. */
export function addConfig(program: Command, context: CommandContext): void {
  const config = program
    .command('config')
    .helpCommand(false)
    .summary('Look at settings')
    .description('Look at the settings of keyturn run.');
  const show = addSettings(withOutput(config.command('show')), SETTING_NAMES, true)
    .summary('Show every setting, its value and where it came from')
    .description(
      'Show every setting as keyturn run would see it with the same flags, environment and file. Exits 78 where it would refuse them.',
    )
    .addHelpText('after', `\n${ENVIRONMENT_HELP}\n\nExample:\n  SECRET_TTL=1h keyturn config show --ca builtin`);
  onRun(show, context, async ({ format, flags }) => {
    const { terminal } = context;
    const { settings, problems } = await readSettings({ flags, env: terminal.env, cwd: terminal.cwd });
    const rows = settings.map((each) => [each.name, each.value, each.origin]);
    terminal.out(format === 'json' ? json({ settings }) : table([['SETTING', 'VALUE', 'ORIGIN'], ...rows]));
    return problems.length === 0 ? 0 : report(oneError(problems), format, terminal);
  });
  const docs = config.command('docs', { hidden: true }).description('Print the table of settings for the README, as Markdown.');
  onRun(docs, context, async () => {
    const { settingsMarkdown } = await import('../config/settings-markdown');
    context.terminal.out(settingsMarkdown());
    return 0;
  });
}
