import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { AgentError } from '../../../agent/base/errors';
import { loadConfig } from '../../../agent/config/load';
import { parseSettingsFile } from '../../../agent/config/settings-file';
import { cpuMs } from '../../support/load';
import { tempDir } from '../../support/temp-dir';

const parse = (text: string | Uint8Array) =>
  parseSettingsFile(Buffer.from(text as string), 'file k.yaml');

async function refusal(text: string | Uint8Array): Promise<string> {
  const caught = await parse(text).catch((error: unknown) => error);
  if (!(caught instanceof AgentError)) throw new Error('expected a refusal');
  expect(caught.code).toBe('ERR_CONFIG');
  return caught.message;
}

describe('a settings file', () => {
  test.each<[string, string, Record<string, string>]>([
    [
      'scalars as they are written',
      'ttl: 1h\nsds-socket-mode: 0600\nrenew-ratio: 0.50',
      { ttl: '1h', 'sds-socket-mode': '0600', 'renew-ratio': '0.50' },
    ],
    [
      'quoted scalars by their value',
      `ttl: "1h"\nnamespace: 'it''s'\nca-dir: "a\\tb"`,
      { ttl: '1h', namespace: "it's", 'ca-dir': 'a\tb' },
    ],
    [
      'words that YAML 1.1 took for booleans',
      'namespace: no\nservice-account: on',
      { namespace: 'no', 'service-account': 'on' },
    ],
    ['lists, joined by commas', 'sds-file-dir: [/a, /b]', { 'sds-file-dir': '/a,/b' }],
    ['lists of lines', 'sds-file-dir:\n  - /a\n  - /b\n', { 'sds-file-dir': '/a,/b' }],
    ['a block scalar', 'namespace: >-\n  shop\n', { namespace: 'shop' }],
    ['comments and nothing', '# nothing\n---\n', {}],
    ['an empty file', '', {}],
    ['a key called __proto__', '__proto__: x', { ['__proto__']: 'x' }],
    [
      'Windows line ends and a byte order mark',
      '\ufeffttl: 1h\r\nca: builtin\r\n',
      { ttl: '1h', ca: 'builtin' },
    ],
  ])('reads %s', async (_, text, want) => {
    expect((await parse(text)).map(({ key, text: value }) => [key, value])).toEqual(
      Object.entries(want),
    );
  });

  test.each([
    ['a list at the top', '- ttl', 'file k.yaml line 1: must be a mapping of settings to values'],
    ['a scalar at the top', 'ttl', 'file k.yaml line 1: must be a mapping of settings to values'],
    [
      'a duplicate key',
      'ttl: 1h\nca: builtin\nttl: 2h',
      'file k.yaml line 3: "ttl" is given twice',
    ],
    ['an empty value', 'ca: builtin\nttl:', 'file k.yaml line 2: ttl: has no value'],
    ['null', 'ttl: ~', 'file k.yaml line 1: ttl: has no value'],
    ['an empty string', 'ttl: ""', 'file k.yaml line 1: ttl: has no value'],
    ['an empty list', 'sds-file-dir: []', 'file k.yaml line 1: sds-file-dir: has no value'],
    ['a mapping below', 'ttl: {a: b}', 'file k.yaml line 1: ttl: must be a plain value'],
    [
      'a list in a list',
      'sds-file-dir: [[/a]]',
      'file k.yaml line 1: sds-file-dir: must be a plain value',
    ],
    ['an alias', 'a: &x 1\nb: *x', 'file k.yaml line 1: a: anchors and tags are not allowed'],
    ['an alias without anchor', 'b: *x', /^file k.yaml line 1: (is not YAML|b: aliases)/],
    ['an anchored list', 'a: &x [1]', 'file k.yaml line 1: a: anchors and tags are not allowed'],
    ['a tag', 'ttl: !!str 1h', 'file k.yaml line 1: ttl: anchors and tags are not allowed'],
    [
      'an unknown tag',
      'ttl: !env TTL',
      /^file k.yaml line 1: (is not YAML: unresolved tag|ttl: anchors and tags)/,
    ],
    [
      'a merge key with an alias',
      'a: &x {b: 1}\n<<: *x',
      /must be a plain value|aliases are not allowed/,
    ],
    ['a key that is a list', '? [a]\n: b', 'file k.yaml line 1: keys must be names of settings'],
    [
      'two documents',
      'ttl: 1h\n---\nttl: 2h',
      /^file k.yaml line 2: is not YAML: source contains multiple documents/,
    ],
    ['what is not YAML', 'ttl: [', /^file k.yaml line 1: is not YAML/],
    ['a tab for indentation', 'a:\n\t- b', /is not YAML|must be/],
    ['what is not UTF-8', Buffer.from([0x74, 0xff, 0xfe]), 'file k.yaml: must be UTF-8'],
    [
      'lists that lie in a thousand others',
      `ttl: \n${'- '.repeat(1_000)}x`,
      'file k.yaml line 2: is nested too deeply',
    ],
    [
      'a file beyond 256 KiB',
      Buffer.alloc(256 * 1024 + 1, 0x20),
      'file k.yaml: must not be larger than 256 KiB',
    ],
  ])('refuses %s', async (_, text, want) => {
    const message = await refusal(text);
    if (typeof want === 'string') expect(message).toBe(want);
    else expect(message).toMatch(want);
  });

  const size = 256 * 1024;
  const fill = (piece: string) => piece.repeat(Math.floor(size / piece.length));
  test.each([
    ['commas in a list', `[${fill(',').slice(1)}`],
    ['closing braces', fill('}')],
    ['anchors', fill('&a ')],
    ['open brackets', fill('[')],
    ['nested lists', fill('- ')],
    ['tags', fill('! ')],
    ['quotes', fill('"\n')],
    ['wrong signs within the bound', fill('}').slice(0, 9_000)],
    ['keys', Array.from({ length: 30_000 }, (_, index) => `k${index}: 1`).join('\n')],
    [
      'a bomb of aliases',
      Array.from(
        { length: 60 },
        (_, index) =>
          `a${index}: &a${index} [${index === 0 ? 'x' : fill(`*a${index - 1}, `).slice(0, 4_000)}]`,
      ).join('\n'),
    ],
  ])('a file full of %s is judged in a moment', async (_, text) => {
    const started = cpuMs();
    await parse(text).catch((error: unknown) => expect(error).toBeInstanceOf(AgentError));
    // Far above the usual time, far below that of the parser without its bounds.
    expect(cpuMs() - started).toBeLessThan(4_000);
  });
});

describe('the file on disk', () => {
  test('is read relative to the working directory', async () => {
    const cwd = tempDir();
    writeFileSync(join(cwd, 'k.yaml'), 'ca: builtin\nttl: 2h\n');
    const { config } = await loadConfig({ flags: { config: './k.yaml' }, env: {}, cwd });
    expect(config).toMatchObject({ ca: ['builtin'], ttlMs: 7_200_000 });
  });

  test.each([
    ['that is missing', () => undefined, 'there is no such file'],
    ['that is a directory', (path: string) => mkdirSync(path), 'must be a regular file'],
    [
      'that is too large',
      (path: string) => writeFileSync(path, Buffer.alloc(300_000)),
      'must not be larger than 262144 bytes',
    ],
  ])('%s stops the start', async (_, make, words) => {
    const cwd = tempDir();
    make(join(cwd, 'k.yaml'));
    await expect(
      loadConfig({ flags: { config: 'k.yaml', ca: 'builtin' }, env: {}, cwd }),
    ).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining(words),
    });
  });
});
