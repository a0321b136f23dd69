import { expect, test } from '@jest/globals';
import { AgentError } from '../../../agent/base/errors';
import { EXIT_CODES } from '../../../agent/cli/exit-code';
import { counted, facts, instant, table } from '../../../agent/cli/render';
import { printable, report } from '../../../agent/cli/report';
import type { Terminal } from '../../../agent/cli/terminal';

function reported(error: AgentError, format: 'text' | 'json') {
  let text = '';
  const terminal = { err: (part: string) => (text += part) } as unknown as Terminal;
  return { code: report(error, format, terminal), text };
}

test('a table aligns its columns, has no trailing spaces, and a dash for nothing', () => {
  expect(
    table(
      [
        ['A', 'LONG', 'C'],
        ['1', undefined, 'x'],
        ['22', 'b', ''],
      ],
      ' ',
    ),
  ).toBe(' A   LONG  C\n 1   -     x\n 22  b     -\n');
  expect(table([])).toBe('');
});

test('facts align their labels and leave out what is not known', () => {
  expect(
    facts([
      ['a', 1],
      ['long', undefined],
      ['bcd', 'x'],
    ]),
  ).toBe('a    1\nbcd  x\n');
});

test.each([
  ['2026-01-01T12:00:00.000Z', '2026-01-01 12:00:00Z (in 12h)'],
  ['2025-12-31T23:59:00.000Z', '2025-12-31 23:59:00Z (1m ago)'],
  ['2036-01-01T00:00:00.000Z', '2036-01-01 00:00:00Z (in 3652 days)'],
  [undefined, undefined],
])('instant %s', (iso, want) => expect(instant(iso, '2026-01-01T00:00:00.000Z')).toBe(want));

test.each([
  [0, '0 roots'],
  [1, '1 root'],
  [2, '2 roots'],
])('counted %d', (count, want) => expect(counted(count, 'root')).toBe(want));

test('foreign text cannot steer the terminal or begin a line', () => {
  expect(printable('a\x1b[2Jb\nc\x07\x9bd\u00e9')).toBe('a\\u001b[2Jb\\nc\\u0007?d\u00e9');
});

test('an error is its words, then its hint; a cause is told unless our words say it already', () => {
  const cause = new Error('the wire broke');
  expect(
    reported(
      new AgentError('ERR_CA_UNAVAILABLE', 'sign: no answer', { cause, hint: 'wait' }),
      'text',
    ),
  ).toEqual({
    code: 75,
    text: 'keyturn: error: sign: no answer: the wire broke\nkeyturn: hint: wait\n',
  });
  const system = Object.assign(new Error('ENOENT: no such file'), {
    syscall: 'open',
    code: 'ENOENT',
  });
  expect(
    reported(
      new AgentError('ERR_INPUT', 'read x: there is no such file', { cause: system }),
      'text',
    ).text,
  ).toBe('keyturn: error: read x: there is no such file\n');
});

test('several problems are told one by one, also as JSON', () => {
  const problems = [
    new AgentError('ERR_CONFIG', 'a: b', { hint: 'c' }),
    new AgentError('ERR_CONFIG', 'd: e'),
  ];
  const both = new AgentError('ERR_CONFIG', 'settings: 2 are wrong', {
    cause: new AggregateError(problems),
  });
  expect(reported(both, 'text').text).toBe(
    'keyturn: error: a: b\nkeyturn: hint: c\nkeyturn: error: d: e\n',
  );
  expect(JSON.parse(reported(both, 'json').text)).toEqual({
    errors: [
      { code: 'ERR_CONFIG', message: 'a: b', hint: 'c' },
      { code: 'ERR_CONFIG', message: 'd: e' },
    ],
  });
});

test('exit codes are those of sysexits, and 130 for a command that was given up', () => {
  const codes = Object.values(EXIT_CODES).filter((code) => code !== EXIT_CODES.ERR_ABORTED);
  for (const code of codes) expect([64, 65, 66, 69, 70, 71, 73, 75, 76, 77, 78]).toContain(code);
  expect(EXIT_CODES).toMatchObject({
    ERR_USAGE: 64,
    ERR_CONFIG: 78,
    ERR_SOCKET_IN_USE: 71,
    ERR_CONTROL: 69,
    ERR_CA_REJECTED: 77,
    ERR_BUG: 70,
  });
});
