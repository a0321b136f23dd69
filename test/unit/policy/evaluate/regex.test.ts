import { expect, test } from '@jest/globals';
import { matchesRe2 } from '../../../../agent/policy/evaluate/regex';

test.each([
  ['a.c', 'a\rc', true],
  ['a.c', 'a\nc', false],
  ['a.c', 'a\u2028c', true],
  ['a.c', 'a😀c', true],
  ['abc', 'xabc', false],
  ['a|b', 'ab', false],
  ['\\s', '\u00a0', false],
  ['[\\s\\d]+', '7 ', true],
  ['\\S', '\u00a0', true],
  ['(?P<name>x)y', 'xy', true],
  ['a{,2}', 'a{,2}', true],
  ['a{2}', 'aa', true],
  ['w\\^\\$', 'w^$', true],
  ['a\\-b\\/c', 'a-b/c', true],
  ['[]a]', ']', true],
  ['[^]a]', ']', false],
  ['(?i)AbC', 'aBc', true],
  ['x]}/', 'x]}/', true],
])('RE2 reads %j of %j as %j', (regex, value, want) => {
  expect(matchesRe2(regex, value)).toBe(want);
});

test.each([
  '(?=a)',
  '(a)\\1',
  '[[:alpha:]]',
  '\\pL',
  '\\Qa\\E',
  'a(',
  '[a',
  'a\\',
  'a{1001}',
  '(?s).',
])('what RE2 and JavaScript read differently is refused: %s', (regex) => {
  expect(() => matchesRe2(regex, 'a')).toThrow(/^regex /);
});
