import type { Command } from 'commander';
import { readSettings, settingsError } from '../config/load';
import { SETTING_NAMES } from '../config/options';
import { type CommandContext, onRun, withOutput } from './command';
import { json, table } from './render';
import { report } from './report';
import { addSettings, ENVIRONMENT_HELP } from './settings-options';

/** `keyturn config show`, and `config docs` for docs/settings.md. */
export function addConfig(program: Command, context: CommandContext): void {
  const config = program
    .command('config')
    .helpCommand(false)
    .summary('Show settings')
    .description('Show the settings of keyturn run.');
  const show = addSettings(withOutput(config.command('show')), SETTING_NAMES, true)
    .summary('Show every setting, its value and where it came from')
    .description(
      'Show every setting as keyturn run would see it with the same flags, environment and file, and each workload of --workloads. Exits 78 where it would refuse any of them.',
    )
    .addHelpText(
      'after',
      `\n${ENVIRONMENT_HELP}\n\nExample:\n  SECRET_TTL=1h keyturn config show --ca builtin`,
    );
  onRun(show, context, async ({ format, flags }) => {
    const { terminal } = context;
    const { settings, problems, loaded } = await readSettings({
      flags,
      env: terminal.env,
      cwd: terminal.cwd,
    });
    const { checkWorkloadList, workloadListText } = await import('./workload-list-check');
    const list = loaded && (await checkWorkloadList(loaded, terminal.cwd));
    const rows = settings.map((each) => [each.name, each.value, each.origin]);
    const text = `${table([['SETTING', 'VALUE', 'ORIGIN'], ...rows])}${list ? `\n${workloadListText(list)}` : ''}`;
    terminal.out(
      format === 'json' ? json({ settings, ...(list && { workloads: list.workloads }) }) : text,
    );
    const wrong = [...problems, ...(list?.problems ?? [])];
    return wrong.length === 0 ? 0 : report(settingsError(wrong), format, terminal);
  });
  const docs = config
    .command('docs', { hidden: true })
    .description('Print the table of docs/settings.md, as Markdown.');
  onRun(docs, context, async () => {
    const { settingsMarkdown } = await import('../config/settings-markdown');
    context.terminal.out(settingsMarkdown());
    return 0;
  });
}
