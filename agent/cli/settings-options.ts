import { type Command, Option } from 'commander';
import { AgentError } from '../base/errors';
import { readSetting } from '../config/load';
import {
  environmentName,
  OPTIONS,
  type Option as Setting,
  type SettingName,
  type Values,
} from '../config/options';
import type { Flags } from '../config/sources';
import type { Terminal } from './terminal';

/** Adds the flags of settings to a command, from the one table; under headings where there are many. */
export function addSettings(
  command: Command,
  names: readonly SettingName[],
  grouped = false,
): Command {
  for (const name of names) addSetting(command, name, OPTIONS[name], grouped);
  return command;
}

/** Adds one that the command itself explains, or finds a default for. */
export function addSettingAs(
  command: Command,
  name: SettingName,
  own: Partial<Pick<Setting<unknown>, 'help' | 'default'>>,
): Command {
  return addSetting(command, name, { ...OPTIONS[name], ...own }, false);
}

function addSetting(
  command: Command,
  name: SettingName,
  setting: Setting<unknown>,
  grouped: boolean,
): Command {
  const option = new Option(
    `--${name} <${setting.type.placeholder}>`,
    `${setting.help}${facts(name, setting)}`,
  );
  if (grouped) option.helpGroup(`${setting.group}:`);
  if (setting.type.many)
    option.argParser((value: string, before: readonly string[] = []) => [...before, value]);
  return command.addOption(option);
}

/** The settings among a command's parsed options, by their names in the table. */
export function settingFlags(options: Readonly<Record<string, unknown>>): Flags {
  const flags: Record<string, string | readonly string[]> = {};
  for (const name of Object.keys(OPTIONS)) {
    const value = options[camelCase(name)];
    if (typeof value === 'string' || Array.isArray(value)) flags[name] = value;
  }
  return flags;
}

/** What help says about every setting's other names. */
export const ENVIRONMENT_HELP = `Every setting may also come from the environment, as ${environmentName('sds-socket')}
for --sds-socket, or from the file of --config, as sds-socket. Flags win over
the environment, that over the file.`;

/** ` (ecdsa-p256, rsa-2048; default: 24h; also SECRET_TTL)`, as far as there is something to say. */
function facts(name: SettingName, setting: Setting<unknown>): string {
  const said = [
    setting.type.choices?.join(', '),
    setting.default === undefined ? undefined : `default: ${setting.default.replaceAll(',', ', ')}`,
    setting.upstream && `also ${setting.upstream.names.join(', ')}`,
    name === 'config' ? `also ${environmentName(name)}` : undefined,
  ].filter((each) => each !== undefined);
  return said.length === 0 ? '' : ` (${said.join('; ')})`;
}

function camelCase(name: string): string {
  return name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase());
}

/**
 * One setting for a command that needs no others.
 *
 * @throws AgentError ERR_CONFIG.
 */
export async function settingOf<N extends SettingName>(
  name: N,
  flags: Flags,
  terminal: Terminal,
): Promise<Values[N]> {
  const value = await readSetting(name, { flags, env: terminal.env, cwd: terminal.cwd });
  if (value === undefined) throw new AgentError('ERR_BUG', `setting ${name}: has no default`);
  return value;
}
