import {
  environmentNames,
  GROUPS,
  OPTIONS,
  type Option,
  SETTING_NAMES,
  type SettingName,
} from './options';

/**
 * The table of docs/settings.md, between its markers `<!-- settings -->` and `<!-- /settings -->`; a check compares them.
 */
export function settingsMarkdown(): string {
  return `${GROUPS.map((group) =>
    section(
      group,
      SETTING_NAMES.filter((name) => OPTIONS[name].group === group),
    ),
  ).join('\n')}`;
}

function section(group: string, names: readonly SettingName[]): string {
  return [
    `**${group}**`,
    '',
    '| flag, file key | environment | default | what it is |',
    '|---|---|---|---|',
    ...names.map(line),
    '',
  ].join('\n');
}

function line(name: SettingName): string {
  const option: Option<unknown> = OPTIONS[name];
  const note = option.upstream?.note === undefined ? '' : ` (${option.upstream.note})`;
  const environment = `${environmentNames(name)
    .map((each) => `\`${each}\``)
    .join(', ')}${note}`;
  const fallback =
    option.default === undefined ? '' : `\`${option.default.replaceAll(',', '`, `')}\``;
  return `| \`${name}\` | ${environment} | ${fallback} | ${option.help}: ${option.type.description} |`;
}
