import type { Command, Option } from 'commander';
import { isSettingName, OPTIONS, type Option as Setting } from '../config/options';

/** What may stand where a value is expected. */
export type Candidates =
  | { readonly kind: 'words'; readonly words: readonly string[] }
  | { readonly kind: 'files' }
  | { readonly kind: 'directories' }
  | { readonly kind: 'nothing' };

/** A flag of a command. `value` is undefined where it takes none. */
export interface CompletedFlag {
  readonly long: string;
  readonly short: string | undefined;
  readonly help: string;
  readonly value: Candidates | undefined;
}

/** A command, its place in the tree (`keyturn secret get`), and what may follow it. */
export interface CompletedCommand {
  readonly path: string;
  readonly commands: readonly { readonly name: string; readonly help: string }[];
  readonly flags: readonly CompletedFlag[];
  readonly argument: Candidates;
}

/** Every command of the tree, parents first: the one thing that the scripts of all shells are made from. */
export function completionModel(command: Command, parent = ''): CompletedCommand[] {
  const path = `${parent}${command.name()}`;
  const help = command.createHelp();
  const children = help.visibleCommands(command);
  const commands = children.map((each) => ({ name: each.name(), help: summaryOf(each) }));
  const flags = help.visibleOptions(command).map(readFlag);
  const own = command.commands.filter((each) => children.includes(each));
  return [
    { path, commands, flags, argument: argumentOf(command) },
    ...own.flatMap((each) => completionModel(each, `${path} `)),
  ];
}

function summaryOf(command: Command): string {
  return command.summary() || command.description();
}

function readFlag(option: Option): CompletedFlag {
  return {
    long: option.long!,
    short: option.short,
    help: helpOf(option),
    value: option.required ? candidatesOf(option) : undefined,
  };
}

/** A setting's sentence without its defaults and other names. */
function helpOf(option: Option): string {
  const name = option.long!.slice(2);
  return isSettingName(name) ? OPTIONS[name].help : option.description;
}

function candidatesOf(option: Option): Candidates {
  const name = option.long!.slice(2);
  const setting: Setting<unknown> | undefined = isSettingName(name) ? OPTIONS[name] : undefined;
  const words = setting?.type.choices ?? option.argChoices;
  if (words) return { kind: 'words', words };
  return named(/<(.*)>/.exec(option.flags)?.[1] ?? '');
}

function argumentOf(command: Command): Candidates {
  const [argument] = command.registeredArguments;
  if (!argument) return { kind: 'nothing' };
  if (argument.argChoices) return { kind: 'words', words: argument.argChoices };
  return argument.name() === 'names'
    ? { kind: 'words', words: ['default', 'ROOTCA'] }
    : named(argument.name());
}

function named(placeholder: string): Candidates {
  if (placeholder === 'dir') return { kind: 'directories' };
  return placeholder === 'file' || placeholder === 'path' ? { kind: 'files' } : { kind: 'nothing' };
}
