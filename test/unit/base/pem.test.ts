import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { AgentError } from '../../../agent/base/errors';
import { readPem, scanPem, writePem } from '../../../agent/base/pem';
import { cpuMs } from '../../support/load';
import { mutated, RUNS } from '../../support/mutations';
import { outcome } from '../../support/outcome';

const der = Buffer.from('a certificate, near enough');
const good = writePem('CERTIFICATE', der).toString();
const body = good.split('\n').slice(1, -2).join('\n');
const read = (text: string) => outcome(() => readPem(Buffer.from(text), 'file'));
const block = { label: 'CERTIFICATE', der };
const refused = (rule: string) => ({ field: 'file', rule });

describe('accepted', () => {
  test.each([
    ['one block', good, [block]],
    ['two blocks', good + good, [block, block]],
    ['no newline at the end', good.trimEnd(), [block]],
    ['CRLF', good.replaceAll('\n', '\r\n'), [block]],
    ['a byte order mark', `\ufeff${good}`, [block]],
    [
      'text around blocks',
      `subject=CN\n${good}# a comment with ----- dashes\n\n${good}and more`,
      [block, block],
    ],
    ['UTF-8 text around blocks', `Zürich\n${good}`, [block]],
    ['blanks at line ends', good.replaceAll('\n', ' \t\n'), [block]],
    ['blank lines in a block', good.replace(body, `\n${body}\n\n`), [block]],
    ['a block in one line', good.replace(body, body.replaceAll('\n', '')), [block]],
    [
      'a block in lines of one character',
      good.replace(body, [...body.replaceAll('\n', '')].join('\n')),
      [block],
    ],
    ['another label', good.replaceAll('CERTIFICATE', 'X509 CRL'), [{ label: 'X509 CRL', der }]],
  ])('%s', (_, text, want) => expect(read(text)).toEqual(want));
});

describe('refused', () => {
  const alone = 'must have each BEGIN and END on a line of its own';
  const label = 'must have labels of capitals, digits and single spaces, at most 64 long';
  test.each([
    ['nothing', '', 'must hold at least one PEM block'],
    ['text alone', 'hello\n', 'must hold at least one PEM block'],
    ['DER', der.toString('latin1'), 'must hold at least one PEM block'],
    ['a NUL in a block', good.replace(body, `${body}\0`), 'must not contain NUL'],
    ['a NUL after the block', `${good}\0`, 'must not contain NUL'],
    ['garbage in base64', good.replace(body, `${body}!`), 'must be base64'],
    ['a character too few', good.replace(body, body.slice(0, -1)), 'must be base64'],
    ['padding in the middle', good.replace(body, `AA==${body}`), 'must be base64'],
    ['too much padding', good.replace(body, 'A==='), 'must be base64'],
    ['stray bits before padding', good.replace(body, 'AB=='), 'must be base64'],
    ['an empty block', good.replace(body, ''), 'must not be empty'],
    [
      'a mismatched END',
      good.replace('END CERTIFICATE', 'END PUBLIC KEY'),
      'must end as it begins, not BEGIN CERTIFICATE and END PUBLIC KEY',
    ],
    ['no END', good.slice(0, good.indexOf('-----END')), 'must have an END line'],
    ['no BEGIN', good.slice(good.indexOf('\n') + 1), 'must have a BEGIN line'],
    [
      'a BEGIN in a block',
      good.replace(body, `-----BEGIN CERTIFICATE-----\n${body}`),
      'must end before another block begins',
    ],
    ['blocks glued without a newline', good.trimEnd() + good, alone],
    ['an indented BEGIN', ` ${good}`, alone],
    ['text after BEGIN', good.replace('E-----\n', 'E----- x\n'), alone],
    ['six dashes', good.replace('E-----\n', 'E------\n'), alone],
    ['a small label', good.replaceAll('CERTIFICATE', 'certificate'), label],
    ['an empty label', good.replaceAll(' CERTIFICATE', ' '), label],
    ['a long label', good.replaceAll('CERTIFICATE', 'C'.repeat(65)), label],
    [
      'an encrypted key',
      good.replace(body, `Proc-Type: 4,ENCRYPTED\n\n${body}`),
      'must not have headers; encrypted keys are not supported',
    ],
    ['a byte order mark in the middle', `\ufeff\ufeff${good}`, alone],
  ])('%s', (_, text, rule) => expect(read(text)).toEqual(refused(rule)));

  test('the error names the block', () =>
    expect(read(good + good.replace(body, '!'))).toEqual(refused('block 2: must be base64')));

  test('more than the cap of bytes, before anything is read', () =>
    expect(read('-'.repeat(1024 * 1024 + 1))).toEqual(
      refused('must not be longer than 1048576 bytes'),
    ));

  test('more than the cap of blocks', () =>
    expect(read(good.repeat(1025))).toEqual(refused('must not hold more than 1024 blocks')));
});

test('a scan gives bad blocks in their places and goes on', () => {
  const bad = good.replace(body, '!');
  const items = scanPem(Buffer.from(good + bad + good), 'file');
  expect(items.map((item) => (item instanceof AgentError ? item.message : item.label))).toEqual([
    'CERTIFICATE',
    'file: block 2: must be base64',
    'CERTIFICATE',
  ]);
});

describe('A5 C12 time is linear: a megabyte of malice takes less than 50 ms', () => {
  const megabyte = (line: string) => line.repeat(Math.floor(856_000 / line.length));
  test.each([
    ['-----BEGIN lines', megabyte('-----BEGIN CERTIFICATE-----\n')],
    ['-----BEGIN without more', megabyte('-----BEGIN\n')],
    ['-----BEGIN in one line', megabyte('-----BEGIN ')],
    ['-----END lines', megabyte('-----END CERTIFICATE-----\n')],
    ['alternating', megabyte('-----END A-----\n-----BEGIN A-----\n')],
    ['dashes', megabyte('-')],
    ['dashes in lines', megabyte('-----\n')],
    ['newlines', megabyte('\n')],
    ['a BEGIN and blanks', `-----BEGIN A-----${megabyte(' ')}`],
    ['BEGINs, then a long rest', '-----BEGIN A-----\n'.repeat(1000) + megabyte('A')],
    ['a huge block', `-----BEGIN A-----\n${megabyte('AAAA\n')}=\n-----END A-----\n`],
  ])('%s', (_, text) => {
    const bytes = Buffer.from(text);
    outcome(() => readPem(bytes, 'file'));
    const startedAt = cpuMs();
    expect(outcome(() => readPem(bytes, 'file'))).toEqual({
      field: 'file',
      rule: expect.any(String),
    });
    // Ten times the measure: machines that run tests are busy.
    expect(cpuMs() - startedAt).toBeLessThan(500);
  });
});

test('what is written comes back, for every length', () => {
  for (let length = 1; length < 200; length += 1) {
    const bytes = randomBytes(length);
    expect(readPem(writePem('PRIVATE KEY', bytes), 'file')).toEqual([
      { label: 'PRIVATE KEY', der: bytes },
    ]);
    const lines = bytes.toString('base64').replace(/(.{64})(?=.)/g, '$1\n');
    expect(writePem('PRIVATE KEY', bytes).toString()).toBe(
      `-----BEGIN PRIVATE KEY-----\n${lines}\n-----END PRIVATE KEY-----\n`,
    );
  }
});

test('mutated PEM is refused with field and rule, or read to blocks that write back to the same bytes', () => {
  const seeds = [good, good + good, good.replaceAll('\n', '\r\n'), `text\n${good}`].map((text) =>
    Buffer.from(text),
  );
  fc.assert(
    fc.property(mutated(seeds), (bytes) => {
      const found = outcome(() => readPem(bytes, 'file'));
      if (!Array.isArray(found))
        return expect(found).toEqual({ field: 'file', rule: expect.any(String) });
      const again = readPem(
        Buffer.concat(found.map((each) => writePem(each.label, each.der))),
        'file',
      );
      expect(again).toEqual(found);
    }),
    { numRuns: RUNS },
  );
});
