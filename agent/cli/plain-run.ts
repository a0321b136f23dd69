import { OPTIONS, type SettingName } from '../config/options';
import type { Flags } from '../config/sources';

/**
 * The flags of `keyturn run`, where its command line is nothing but settings with their values. So it is where a service manager starts an
 * agent, which then need not load a parser and make it 58 options: a tenth of its start. Whatever else there is, help, mistakes, a value that
 * looks like a flag, is for the parser.
 *
 * @param argv  Without the runtime and the program.
 * @returns     What the parser would find; undefined where it has to be asked.
 */
export function plainRunFlags([command, ...args]: readonly string[]): Flags | undefined {
  if (command !== 'run') return undefined;
  const flags: Record<string, string | readonly string[]> = {};
  for (const [name, value] of pairsOf(args)) {
    if (name === undefined || value === undefined || !isSetting(name)) return undefined;
    const before = flags[name] ?? [];
    if (OPTIONS[name].type.many) flags[name] = [...before, value];
    else if (name in flags) return undefined;
    else flags[name] = value;
  }
  return flags;
}

/** `--name value` and `--name=value`; undefined for what is neither. */
function* pairsOf(
  args: readonly string[],
): Generator<readonly [string | undefined, string | undefined]> {
  const rest = [...args];
  for (let flag = rest.shift(); flag !== undefined; flag = rest.shift()) {
    const [, name, value] = /^--([a-z0-9-]+)(?:=(.*))?$/s.exec(flag) ?? [];
    if (value !== undefined) yield [name, value];
    else yield [name, rest[0]?.startsWith('-') ? undefined : rest.shift()];
  }
}

function isSetting(name: string): name is SettingName {
  return Object.hasOwn(OPTIONS, name);
}
