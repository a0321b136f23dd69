import { describe, expect, test } from '@jest/globals';
import { Command } from 'commander';
import fc from 'fast-check';
import { plainRunFlags } from '../../../agent/cli/plain-run';
import { addSettings, settingFlags } from '../../../agent/cli/settings-options';
import { OPTIONS, SETTING_NAMES } from '../../../agent/config/options';

/** What the parser makes of the same words; undefined where it complains, or has words left. */
function parsed([, ...args]: readonly string[]): ReturnType<typeof settingFlags> | undefined {
  const command = addSettings(new Command('run'), SETTING_NAMES)
    .exitOverride()
    .configureOutput({ writeOut: () => undefined, writeErr: () => undefined })
    .allowExcessArguments(false);
  try {
    command.parse(args, { from: 'user' });
    return settingFlags(command.opts());
  } catch {
    return undefined;
  }
}

const many = SETTING_NAMES.filter((name) => OPTIONS[name].type.many);
const name = fc.constantFrom(...SETTING_NAMES, ...many, 'help', 'no-such-thing', '');
const value = fc.oneof(
  fc.constantFrom('builtin', '', '-', '--', '--ca', '-h', 'a=b', 'a b', '24h', 'ü\n'),
  fc.string({ maxLength: 8 }),
);
const word = fc.oneof(
  fc.tuple(name, value).map(([flag, text]) => [`--${flag}`, text]),
  fc.tuple(name, value).map(([flag, text]) => [`--${flag}=${text}`]),
  value.map((text) => [text]),
);
const commandLine = fc.array(word, { maxLength: 5 }).map((words) => ['run', ...words.flat()]);

test('what is read without the parser is what the parser reads', () => {
  let plain = 0;
  fc.assert(
    fc.property(commandLine, (argv) => {
      const flags = plainRunFlags(argv);
      plain += flags ? 1 : 0;
      if (flags) expect(flags).toEqual(parsed(argv));
    }),
    { numRuns: 3_000 },
  );
  expect(plain).toBeGreaterThan(200);
});

describe('without the parser', () => {
  test.each<[readonly string[], object]>([
    [['run'], {}],
    [['run', '--ca', 'builtin', '--ttl=1h'], { ca: ['builtin'], ttl: '1h' }],
    [['run', '--ca=', '--ttl', ''], { ca: [''], ttl: '' }],
  ])('%j is read', (argv, flags) => {
    expect(plainRunFlags(argv)).toEqual(flags);
    expect(parsed(argv)).toEqual(flags);
  });

  test.each([
    [[]],
    [['status']],
    [['run', '--help']],
    [['run', 'now']],
    [['run', '--ttl']],
    [['run', '--ttl', '-1h']],
    [['run', '--ttl', '1h', '--ttl', '2h']],
    [['run', '--sds-sokcet', 'x']],
    [['run', '--', '--ttl', '1h']],
    [['run', '--toString', 'x']],
  ])('%j is not', (argv) => expect(plainRunFlags(argv)).toBeUndefined());
});
