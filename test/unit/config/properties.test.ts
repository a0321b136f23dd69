import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { formatDuration, parseDuration } from '../../../agent/base/duration';
import { AgentError } from '../../../agent/base/errors';
import { formatHostPort, parseHostPort } from '../../../agent/base/host-port';
import { suggestion } from '../../../agent/base/suggestion';
import { readSettings } from '../../../agent/config/load';
import {
  environmentNames,
  OPTIONS,
  type Option,
  SETTING_NAMES,
} from '../../../agent/config/options';
import { parseSettingsFile } from '../../../agent/config/settings-file';
import { mutated, RUNS } from '../../support/mutations';

const bytes = (texts: readonly string[]) => texts.map((text) => Buffer.from(text));
const mutatedText = (texts: readonly string[]) =>
  mutated(bytes(texts)).map((each) => Buffer.from(each).toString('utf8'));

/** Either a value that `good` accepts or an AgentError with field and rule; nothing else may happen. */
function settles<T>(parse: () => T, field: string, good: (value: T) => boolean): boolean {
  try {
    return good(parse());
  } catch (error) {
    return (
      error instanceof AgentError &&
      error.field === field &&
      error.rule !== undefined &&
      error.rule !== ''
    );
  }
}

test('a mutated duration is a whole number of milliseconds in range, or refused by field and rule', () => {
  const texts = [
    '24h',
    '1h30m',
    '250ms',
    '1.5h',
    '7d',
    '0',
    '3650d',
    '1h1m1s1ms',
    '000000000000001.000000001s',
  ];
  fc.assert(
    fc.property(mutatedText(texts), (text) =>
      settles(
        () => parseDuration(text, 'ttl'),
        'ttl',
        (ms) => Number.isSafeInteger(ms) && ms >= 0 && ms <= 100 * 365 * 86_400_000,
      ),
    ),
    { numRuns: RUNS },
  );
});

test('a duration of whole units survives being written and read', () => {
  fc.assert(
    fc.property(fc.nat(99), fc.nat(59), (hours, minutes) => {
      const ms = hours * 3_600_000 + minutes * 60_000;
      return parseDuration(formatDuration(ms), 'ttl') === ms;
    }),
    { numRuns: RUNS },
  );
});

test('a mutated address is host and port that say the same again, or refused', () => {
  const texts = [
    '127.0.0.1:15020',
    '[::1]:15020',
    'localhost:0',
    '[fe80::1%eth0]:65535',
    'a.example:1',
  ];
  fc.assert(
    fc.property(mutatedText(texts), (text) =>
      settles(
        () => parseHostPort(text, 'address'),
        'address',
        (address) => {
          const again = parseHostPort(formatHostPort(address), 'address');
          return (
            again.host === address.host && again.port === address.port && address.port <= 65_535
          );
        },
      ),
    ),
    { numRuns: RUNS },
  );
});

test.each(SETTING_NAMES)(
  'a mutated value of %s is accepted or refused by field and rule',
  (name) => {
    const option: Option<unknown> = OPTIONS[name];
    const seeds = [
      option.default ?? 'value',
      'spiffe://td/ns/a/sa/b',
      '0660',
      '0.5',
      'a.b:80',
      ...(option.type.choices ?? []),
    ];
    fc.assert(
      fc.property(mutatedText(seeds), (text) =>
        settles(
          () => option.type.parse(text, `flag --${name}`),
          `flag --${name}`,
          (value) => value !== undefined,
        ),
      ),
      { numRuns: Math.ceil(RUNS / 5) },
    );
  },
);

test('a mutated settings file is entries of text, or refused by ERR_CONFIG', async () => {
  const texts = [
    'ca: builtin\nttl: 1h\nsds-socket-mode: 0600\n',
    'sds-file-dir:\n  - /a\n  - /b\nnamespace: "shop"\n# a comment\n',
    `{ca: builtin, "ttl": '1h', sds-file-dir: [/a, /b]}`,
    'namespace: >-\n  shop\nservice-account: |\n  cart\n',
    '%YAML 1.2\n---\nca: &a builtin\nttl: *a\n...\n',
    '? ca\n: !!str builtin\n',
  ];
  await fc.assert(
    fc.asyncProperty(mutated(bytes(texts)), async (file) => {
      try {
        const entries = await parseSettingsFile(file, 'file x');
        return (
          entries.every(({ key, text }) => key !== '' && text !== '') &&
          new Set(entries.map(({ key }) => key)).size === entries.length
        );
      } catch (error) {
        return (
          error instanceof AgentError &&
          error.code === 'ERR_CONFIG' &&
          (error.field ?? '').startsWith('file x')
        );
      }
    }),
    { numRuns: RUNS },
  );
});

test('whatever environment and flags there are, settings are either all read or each problem says where it is', async () => {
  const names = SETTING_NAMES.flatMap((name) => environmentNames(name)).filter(
    (name) => name !== 'KEYTURN_CONFIG',
  );
  const texts = SETTING_NAMES.flatMap((name) => [
    OPTIONS[name].default ?? 'x',
    ...(OPTIONS[name].type.choices ?? []),
  ]);
  const value = fc.oneof(
    fc.constantFrom(...texts, 'true', 'false', 'ECDSA', 'P384', '2048', 'spiffe://td/a', '0', '1'),
    mutatedText(texts),
  );
  const flag = fc.constantFrom(...SETTING_NAMES.filter((name) => name !== 'config'));
  await fc.assert(
    fc.asyncProperty(
      fc.dictionary(fc.constantFrom(...names, 'KEYTURN_X', 'CA_ADDR'), value, { maxKeys: 6 }),
      fc.dictionary(flag, value, { maxKeys: 4 }),
      async (env, flags) => {
        const report = await readSettings({ flags, env, cwd: '/nonexistent' });
        if (report.loaded) {
          const { config } = report.loaded;
          if (report.problems.length > 0) return false;
          // Of many workloads each is judged by itself.
          if (config.workloads !== undefined) return true;
          return (
            config.renewJitter < config.renewRatio &&
            (config.id !== undefined || config.ca.includes('file'))
          );
        }
        return (
          report.problems.length > 0 &&
          report.problems.every((each) =>
            /^(flag --|environment |spiffe id)/.test(each.field ?? ''),
          )
        );
      },
    ),
    { numRuns: RUNS },
  );
});

test.each([
  ['tll', 'ttl'],
  ['sds-sokcet', 'sds-socket'],
  ['trustdomain', 'trust-domain'],
  ['zzzzzz', undefined],
  ['', undefined],
  ['x'.repeat(1_000), undefined],
])('the name nearest to %j is %j', (word, want) =>
  expect(suggestion(word, SETTING_NAMES)).toBe(want),
);
