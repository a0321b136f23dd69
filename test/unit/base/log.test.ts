import { describe, expect, test } from '@jest/globals';
import { AgentError } from '../../../agent/base/errors';
import { createLogger, type LogFormat, type LogLevel } from '../../../agent/base/log';
import { Secret } from '../../../agent/base/secret';

function logTo(format: LogFormat, level: LogLevel = 'debug') {
  const lines: string[] = [];
  const log = createLogger(
    {
      format,
      level,
      write: (line) => lines.push(line),
      now: () => Date.parse('2026-01-01T00:00:00Z'),
    },
    'sds',
  );
  return { log, lines };
}

describe('a log line', () => {
  test('as text has time, level, scope, the constant sentence and the facts', () => {
    const { log, lines } = logTo('text');
    log.info('secret pushed', { name: 'default', streams: 3, at: undefined });
    expect(lines).toEqual([
      '2026-01-01T00:00:00.000Z info  sds: secret pushed name=default streams=3',
    ]);
  });

  test('as JSON has the same facts', () => {
    const { log, lines } = logTo('json');
    log.scope('keeper').warn('renewal failed', { attempt: 2 });
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      {
        time: '2026-01-01T00:00:00.000Z',
        level: 'warn',
        scope: 'keeper',
        event: 'renewal failed',
        attempt: 2,
      },
    ]);
  });

  test('below the level is not written', () => {
    const { log, lines } = logTo('text', 'warn');
    log.info('quiet');
    log.error('loud');
    expect(lines).toHaveLength(1);
  });

  test('tells an error by its chain of messages, its code and its hint', () => {
    const { log, lines } = logTo('json');
    const cause = new AgentError('ERR_TOKEN', 'read token: no such file', {
      hint: 'mount it',
      cause: new Error('ENOENT'),
    });
    log.warn('renewal failed', { cause });
    expect(JSON.parse(lines[0]!)).toMatchObject({
      cause: 'read token: no such file: ENOENT',
      code: 'ERR_TOKEN',
      hint: 'mount it',
    });
  });

  test.each(['text', 'json'] as const)(
    'as %s stays one line and shows what foreign text hides',
    (format) => {
      const { log, lines } = logTo(format);
      const hidden = [
        'a\nb',
        'c\u202egpj.exe',
        'd\u200be',
        'f\u001b[31mg',
        'h\u0085i',
        'j\u2028k',
        'l\ufeffm',
      ];
      for (const node of hidden) log.info('stream opened', { node });
      for (const [index, line] of lines.entries()) {
        expect(line).toMatch(/^[\x20-\x7e]+$/);
        if (format === 'json') expect(JSON.parse(line).node).toBe(hidden[index]);
      }
    },
  );

  test.each(['text', 'json'] as const)('as %s never holds a secret', (format) => {
    const { log, lines } = logTo(format);
    log.info('token read', {
      token: new Secret('canary'),
      list: [new Secret('canary')],
      deep: { token: new Secret('canary') },
    });
    expect(lines.join('')).not.toContain('canary');
    expect(lines.join('')).toContain('[redacted]');
  });
});
