import { describe, expect, test } from '@jest/globals';
import type { Command } from 'commander';
import { addCommands } from '../../agent/cli/commands';
import { createProgram } from '../../agent/cli/program';
import {
  environmentNames,
  GROUPS,
  OPTIONS,
  type Option,
  SETTING_NAMES,
} from '../../agent/config/options';
import { keyturn } from '../support/command-line';

const context = { terminal: { columns: 100 } as never, done: () => undefined };
const program = addCommands(createProgram(context), context);

function paths(
  command: Command,
  path: readonly string[] = [],
): [string, readonly string[], Command][] {
  const own: [string, readonly string[], Command] = [['keyturn', ...path].join(' '), path, command];
  return [own, ...command.commands.flatMap((each) => paths(each, [...path, each.name()]))];
}

describe.each(paths(program))('%s --help', (_, path, command) => {
  test('answers on standard output in lines of at most 100 columns', async () => {
    const { code, stdout, stderr } = await keyturn([...path, '--help'], { cwd: '/', columns: 200 });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout.split('\n').filter((line) => line.length > 100)).toEqual([]);
    expect(stdout).not.toMatch(/[^\n -~]/);
  });

  test('explains the command and each of its flags', () => {
    expect(command.description()).toMatch(/^[A-Z].*\.$/s);
    for (const option of command.options) expect(option.description).toMatch(/^[A-Z]/);
  });
});

test('help of run has every group, every setting with its default, and upstream’s names', async () => {
  const { stdout } = await keyturn(['run', '--help'], { cwd: '/' });
  const help = stdout.replace(/\s+/g, ' ');
  for (const group of GROUPS) expect(stdout).toContain(`\n${group}:\n`);
  for (const name of SETTING_NAMES) {
    const option: Option<unknown> = OPTIONS[name];
    expect(help).toContain(`--${name} <${option.type.placeholder}> ${option.help}`);
    if (option.default !== undefined) expect(help).toContain(option.default.replaceAll(',', ', '));
    for (const variable of environmentNames(name).slice(1)) expect(help).toContain(variable);
  }
});

test('help fits a terminal of 80 columns', async () => {
  const { stdout } = await keyturn(['--help'], { cwd: '/', columns: 80 });
  const run = await keyturn(['run', '--help'], { cwd: '/', columns: 80 });
  // A command line that is to be copied is not broken.
  const described = (stdout + run.stdout)
    .split('\n')
    .filter((line) => !/^ {2}\S*(?:keyturn|=true) /.test(line));
  expect(described.filter((line) => line.length > 80)).toEqual([]);
});
