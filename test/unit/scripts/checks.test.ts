import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { checkArrows, readDrawing } from '../../../scripts/lib/checks/arrows';
import { checkDroppedAwaits } from '../../../scripts/lib/checks/dropped-awaits';
import { checkForbiddenCalls } from '../../../scripts/lib/checks/forbidden-calls';
import { importsOf } from '../../../scripts/lib/checks/imports';
import { checkDoors, checkPages, checkVersions } from '../../../scripts/lib/checks/pages';
import { checkPortableText } from '../../../scripts/lib/checks/portable-text';
import { checkRunbooks } from '../../../scripts/lib/checks/runbooks';
import { shippedPackageProblems, unpinned } from '../../../scripts/lib/checks/shipped-packages';
import { checkSilenced } from '../../../scripts/lib/checks/silenced';
import { checkModes } from '../../../scripts/lib/checks/source-files';
import { checkSourcesFrom } from '../../../scripts/lib/checks/sources-from';
import { checkWords } from '../../../scripts/lib/checks/words';

const ROOT = join(__dirname, '../../..');
const ARCHITECTURE = readFileSync(join(ROOT, 'agent/ARCHITECTURE.md'), 'utf8');

const DRAWING = readDrawing(`
\`\`\`arrows
agent/base     ->
agent/config   -> agent/base
ca-client      -> agent/base
agent          -> agent/config ca-client(types)
\`\`\`
\`\`\`packages
yaml agent/config
\`\`\`
`);

/** Imports that use every arrow of the drawing, so that only what a test adds can be wrong. */
const SOUND = [
  { path: 'agent/base/clock.ts', text: "import { x } from 'node:fs';\n" },
  {
    path: 'agent/config/load.ts',
    text: "import { a } from '../base/clock';\nconst yaml = await import('yaml');\n",
  },
  { path: 'ca-client/client.ts', text: "export * from '../agent/base/clock';\n" },
  {
    path: 'agent/agent.ts',
    text: "import './config/load';\nimport type { Client } from '../ca-client/client';\n",
  },
];

const withFile = (path: string, text: string) => [
  ...SOUND.filter((file) => file.path !== path),
  { path, text },
];

describe('the import arrows', () => {
  test('are sound where every import has its arrow and every arrow an import', () => {
    expect(checkArrows(SOUND, DRAWING)).toEqual([]);
  });

  test.each([
    [
      'an import against an arrow',
      'agent/base/log.ts',
      "import { load } from '../config/load';",
      'no arrow agent/base -> agent/config',
    ],
    [
      'a dynamic one',
      'agent/base/log.ts',
      "await import('../config/load');",
      'no arrow agent/base -> agent/config',
    ],
    [
      'a re-export',
      'agent/base/log.ts',
      "export { load } from '../config/load';",
      'no arrow agent/base -> agent/config',
    ],
    [
      'an import of several lines',
      'agent/base/log.ts',
      "import {\n  load,\n  save,\n} from '../config/load';",
      'no arrow',
    ],
    [
      'code over an arrow for types',
      'agent/workload.ts',
      "import { Client } from '../ca-client/client';",
      'is for types only',
    ],
    [
      'a package outside its place',
      'agent/base/log.ts',
      "import { parse } from 'yaml';",
      'the package yaml, which belongs to agent/config',
    ],
    [
      'a package that nobody named',
      'agent/base/log.ts',
      "import left from '@scope/left-pad/sub';",
      'the package @scope/left-pad, which',
    ],
    [
      'require',
      'agent/base/log.ts',
      "const { load } = require('../config/load');",
      'agent/base/log.ts:1: loads code other than',
    ],
    [
      'createRequire',
      'agent/base/log.ts',
      'const load = createRequire(here);',
      'loads code other than',
    ],
    [
      'a comment in an import',
      'agent/base/log.ts',
      "await import(/* x */ '../config/load');",
      'loads code other than',
    ],
    ['a template', 'agent/base/log.ts', 'await import(`../config/load`);', 'loads code other than'],
    [
      'an import with options',
      'agent/base/log.ts',
      "await import('../base/clock', {});",
      'loads code other than',
    ],
    [
      'a file that is not .ts',
      'agent/base/log.mts',
      '',
      'agent/base/log.mts is a program file that does not end in .ts',
    ],
    [
      'a folder that is not drawn',
      'agent/policy/compile.ts',
      'export const x = 1;',
      'agent/policy/compile.ts belongs to no unit',
    ],
  ])('differ with %s', (_, path, text, want) => {
    expect(checkArrows(withFile(path, text), DRAWING)).toEqual([expect.stringContaining(want)]);
  });

  test('differ with a circle of files, imports of types included', () => {
    const files = [
      ...SOUND,
      { path: 'agent/base/log.ts', text: "import type { A } from './a';" },
      { path: 'agent/base/a.ts', text: "import './b';" },
      { path: 'agent/base/b.ts', text: "export * from './log';" },
    ];
    expect(checkArrows(files, DRAWING)).toEqual([
      'files in a circle: agent/base/a -> agent/base/b -> agent/base/log -> agent/base/a',
    ]);
  });

  test('differ with a circle that is drawn', () => {
    const drawn = readDrawing(
      '```arrows\nagent/base -> agent/config(types)\nagent/config -> agent/base\n```',
    );
    const files = [
      { path: 'agent/base/clock.ts', text: "import type { Config } from '../config/config';" },
      { path: 'agent/config/load.ts', text: "import '../base/clock';" },
    ];
    expect(checkArrows(files, drawn)).toEqual([
      'the drawing has a circle: agent/base -> agent/config -> agent/base',
    ]);
  });

  test('differ with an arrow that no import uses', () => {
    const unused = ['the drawing has ca-client -> agent/base, which no import uses'];
    expect(checkArrows(withFile('ca-client/client.ts', ''), DRAWING)).toEqual(unused);
  });

  test('tell imports of types from imports of code', () => {
    const text = [
      "import type { A } from './a';",
      "import { type B, type C } from './b';",
      "import { type D, e } from './c';",
      "type F = typeof import('./d');",
      "const g: import('./e').G = 1;",
    ].join('\n');
    expect(importsOf({ path: 'sds/x.ts', text }).map((each) => each.typesOnly)).toEqual([
      true,
      true,
      false,
      true,
      true,
    ]);
  });

  test('the seams that ARCHITECTURE.md lists have an example each', () => {
    const seams = [...ARCHITECTURE.matchAll(/^\| `(\w+)` \| `([\w/.-]+)` \|/gm)];
    expect(seams.length).toBe(10);
    for (const [, symbol, path] of seams)
      expect(readFileSync(join(ROOT, path!), 'utf8')).toMatch(
        new RegExp(`@example(?:(?!\\*/)[\\s\\S])*\\*/\\s*export [\\w ]*\\b${symbol}\\b`),
      );
  });

  test('are drawn in ARCHITECTURE.md', () => {
    const drawing = readDrawing(ARCHITECTURE);
    expect(drawing.units.get('agent/lifecycle')?.get('ca-client')).toBe('types');
    expect(drawing.packages.get('yaml')).toEqual(['agent/base/yaml.ts']);
  });
});

describe('calls that belong to one place', () => {
  test.each([
    [
      'agent/lifecycle/keeper.ts',
      'const now = Date.now();',
      ['agent/lifecycle/keeper.ts:1: Date.now belongs to agent/base/'],
    ],
    [
      'sds/server.ts',
      'let a;\nsetTimeout(f, 1);',
      ['sds/server.ts:2: setTimeout belongs to agent/base/'],
    ],
    [
      'sds/server.ts',
      'process.exit(1)',
      ['sds/server.ts:1: process.exit belongs to agent/main.ts'],
    ],
    ['agent/admin/gauges.ts', 'performance.now(); setImmediate(f);', []],
    ['agent/cli/terminal.ts', "process.stdout.write('x')", []],
    [
      'sds/x.ts',
      'const at: Date = new Date(now); Date.parse(text); Date.UTC(1); Math.max(1); const process = 1;',
      ['sds/x.ts:1: the Date of now belongs to agent/base/'],
    ],
    [
      'sds/x.ts',
      'new Date(now); Date.parse(text); Date.UTC(1); Math.max(1); log(process.pid);',
      [],
    ],
    ['agent/base/clock.ts', 'Date.now(); setTimeout(f, 1); Math.random();', []],
    [
      'agent/lifecycle/keeper.ts',
      '// Date.now is not for us\n/* nor\n Math.random */ const text = "setTimeout";',
      [],
    ],
    ['agent/lifecycle/keeper.ts', 'new Date(at).toISOString()', []],
    ['test/unit/x.test.ts', 'Date.now()', []],
  ])('%s with %j', (path, text, want) => {
    expect(checkForbiddenCalls([{ path, text }])).toEqual(want);
  });

  test.each([
    'const { now } = Date;',
    "Date['now']();",
    'Date();',
    'performance.now();',
    'process.hrtime.bigint();',
    'AbortSignal.timeout(1);',
    'scheduler.wait(1);',
    'setImmediate(f);',
    'crypto.randomInt(1);',
    'getRandomValues(a);',
    'const { random } = Math;',
    'process.exitCode = 1;',
    "process.kill(pid, 'SIGTERM');",
    "process.stdout.write('x');",
    "process['exit'](1);",
    'const { exit } = process;',
    "globalThis['setTimeout'](f);",
    "import { exit } from 'node:process';",
    "import { setTimeout as pause } from 'node:timers/promises';",
  ])('sds/codec.ts with %j', (text) => {
    expect(checkForbiddenCalls([{ path: 'sds/codec.ts', text }])).not.toEqual([]);
  });
});

const BEGIN_KEY = ['-----BEGIN', 'PRIVATE KEY-----'].join(' ');

describe('text that others will clone', () => {
  test.each([
    ['cd /srv/clones/keyturn/dist', ['a.md:1: holds the path of this clone']],
    [
      `see ${['', 'home', 'somebody', 'notes'].join('/')}`,
      ['a.md:1: holds the path of a home directory'],
    ],
    [
      `      "${'resolved'}": "https://example.org/a.tgz",`,
      ['a.md:1: holds a resolved package address'],
    ],
    [
      `npm --registry https:/${'/registry'}.example.org/`,
      ['a.md:1: holds the address of a package registry'],
    ],
    ['cd "/srv/clones/keyturn/dist"', ['a.md:1: holds the path of this clone']],
    [`${'registry'}=https://example.org/npm`, ['a.md:1: holds the address of a package registry']],
    [`"x": "${'git+'}ssh://example.org/x"`, ['a.md:1: holds a package from a repository']],
    ['<'.repeat(7), ['a.md:1: holds a conflict marker']],
    [`${'>'.repeat(7)} theirs`, ['a.md:1: holds a conflict marker']],
    [
      `${BEGIN_KEY}\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg`,
      ['a.md:1: holds a private key'],
    ],
    [
      `'${BEGIN_KEY}\\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg'`,
      ['a.md:1: holds a private key'],
    ],
    [`${BEGIN_KEY}\nno key`, []],
    ['"$root"/srv/clones/keyturn/x', []],
    ['scripts/build, var/run and https://nodejs.org', []],
    ['/srv/clones/keyturn-other/x and ./srv/clones/keyturn/x', []],
  ])('%j', (text, want) => {
    expect(checkPortableText([{ path: 'a.md', text }], '/srv/clones/keyturn')).toEqual(want);
  });
});

test('H17 what ships is little, pinned, and runs nothing when it is installed', () => {
  const sound = { integrity: 'sha512-x' };
  const direct = Object.fromEntries(
    [...Array(11).keys()].map((each) => [`package-${each}`, '1.0.0']),
  );
  const lock = {
    '': { dependencies: direct },
    'node_modules/a': { ...sound, hasInstallScript: true },
    'node_modules/tool': { dev: true, hasInstallScript: true },
  };
  expect(shippedPackageProblems({ packages: lock }, { a: false })).toEqual([]);
  const bad = {
    '': { dependencies: { ...direct, 'one-more': '1.0.0' } },
    'node_modules/b': { ...sound, hasInstallScript: true },
    'node_modules/c': {},
  };
  expect(shippedPackageProblems({ packages: bad }, { b: true })).toEqual([
    'package.json: 12 dependencies ship, more than 11',
    'node_modules/b: runs a script when it is installed',
    'node_modules/c: no sha512 in package-lock.json',
  ]);
});

test('every dependency is asked for in one version', () => {
  expect(
    unpinned({
      dependencies: { a: '1.2.3', b: '^1.2.3' },
      devDependencies: { c: 'latest', d: '1.0.0-rc.1' },
    }),
  ).toEqual([
    'package.json: b is ^1.2.3, not one version',
    'package.json: c is latest, not one version',
  ]);
});

describe('promises that a statement drops', () => {
  const imports = "import { open, rename } from 'node:fs/promises';\n";
  test.each([
    ["rename('a', 'b');", true],
    ["if (is) rename('a', 'b');", true],
    ["for (const x of xs) rename('a', x);", true],
    ["const file = await open('a');\nfile.close();", true],
    ['version.sync();', true],
    ['this.#file!.appendFile(bytes);', true],
    ['clock.sleepUntil(at, signal).catch(() => undefined);', true],
    ["await rename('a', 'b');", false],
    ["void rename('a', 'b');", false],
    ["return rename('a', 'b');", false],
    ["const done =\n  rename('a', 'b');", false],
    ['await clock.sleepUntil(at, signal).catch(() => undefined);', false],
    ['list.push(await clock.sleepUntil(at).catch(() => undefined));', false],
    ['const done = work().catch(() => undefined);', false],
    ['await each(() => {\n  f();\n}).catch(() => undefined);', false],
    ['directory.close();', false],
  ])('%j: %s', (text, isDropped) => {
    expect(checkDroppedAwaits([{ path: 'agent/x.ts', text: imports + text }])).toHaveLength(
      isDropped ? 1 : 0,
    );
  });
});

describe('what makes a tool or a test say nothing', () => {
  test.each([
    ['agent/x.ts', '// @ts-expect-error: later', ['agent/x.ts:1: switches the compiler off']],
    ['test/x.ts', '// @ts-nocheck', ['test/x.ts:1: switches the compiler off']],
    [
      'test/x.test.ts',
      'jest.retryTimes(3);',
      ['test/x.test.ts:1: runs a test again until it passes'],
    ],
    [
      'agent/x.ts',
      '// biome-ignore lint/suspicious/noExplicitAny: x',
      ['agent/x.ts:1: ignores lint/suspicious/noExplicitAny, which may not be ignored here'],
    ],
    [
      'test/x.ts',
      '// biome-ignore-all lint/suspicious/noExplicitAny: x',
      [expect.stringContaining('may not be ignored')],
    ],
    ['test/x.ts', '// biome-ignore lint: x', [expect.stringContaining('may not be ignored')]],
    ['test/x.ts', '// biome-ignore lint/suspicious/noExplicitAny: any pod', []],
    [
      'agent/x.ts',
      'try {\n  f();\n} catch {}',
      ['agent/x.ts:3: catches an error and does nothing: say why'],
    ],
    [
      'agent/x.ts',
      'try {\n  f();\n} catch (e) {\n}',
      ['agent/x.ts:3: catches an error and does nothing: say why'],
    ],
    [
      'agent/x.ts',
      "f('behind a string');\ntry {\n  f();\n} catch {}",
      ['agent/x.ts:4: catches an error and does nothing: say why'],
    ],
    ['agent/x.ts', 'try {\n  f();\n} catch {\n  // Gone already.\n}', []],
  ])('%s with %j', (path, text, want) => {
    expect(checkSilenced([{ path, text }])).toEqual(want);
  });
});

test('a program can be run, and nothing else', () => {
  const problems = checkModes([
    { path: 'scripts/a', text: '#!/bin/sh\n', executable: true },
    { path: 'scripts/b', text: '#!/bin/sh\n', executable: false },
    { path: 'c.ts', text: 'export {};\n', executable: true },
  ]);
  expect(problems).toEqual([
    'scripts/b: has a #! line and is not executable: chmod +x',
    'c.ts: is executable and has no #! line',
  ]);
});

describe('what the pages say', () => {
  test.each([
    ['[a](agent/x.md) and [b](agent) and [c](#what-it-is) and [d](https://example.org/x)', []],
    ['[a](agent/y.md)', ['README.md:3: links to agent/y.md, which is not there']],
    ['![a](flow.svg)', ['README.md:3: links to flow.svg, which is not there']],
    ['<img src="flow.svg">', ['README.md:3: links to flow.svg, which is not there']],
    ['[a](flow.svg "Flow")', ['README.md:3: links to flow.svg, which is not there']],
    ['[a]: flow.svg', ['README.md:3: links to flow.svg, which is not there']],
    [
      '[a](agent/x.md#one-of-two)',
      ['README.md:3: links to agent/x.md#one-of-two, a heading that is not there'],
    ],
    ['[a](agent/x.md#one-two)', []],
    ['`options.ts` and `agent/options.ts`', []],
    ['`ptions.ts`', ['README.md:3: names the file ptions.ts, which is not there']],
    ['`keyturn run --sds-socket x --force`', []],
    [
      '`keyturn run --sds-sockets x`',
      ['README.md:3: names the flag --sds-sockets, which no source has'],
    ],
  ])('%j', (text, want) => {
    const files = [
      { path: 'README.md', text: `# What it is\n\n${text}\n` },
      { path: 'agent/x.md', text: '## One, two\n' },
      { path: 'agent/options.ts', text: "row('sds-socket'); option('--force');" },
    ];
    expect(checkPages(files)).toEqual(want);
  });

  test('names a metric that no source has', () => {
    const files = [
      { path: 'README.md', text: '`keyturn_ready`, `keyturn_acks_total`, `keyturn_nope`\n' },
      { path: 'agent/a.ts', text: "gauge('keyturn_ready'); const METRICS = { acks_total: { } };" },
    ];
    expect(checkPages(files)).toEqual([
      'README.md:1: names the metric keyturn_nope, which no source has',
    ]);
  });

  test('names an error of the log without a runbook', () => {
    const files = [
      { path: 'docs/runbooks.md', text: '| `it broke` | mend it |\n' },
      { path: 'agent/a.ts', text: "log.error('it broke', {}); deps.log.error('it fell', {});" },
    ];
    expect(checkRunbooks(files)).toEqual([
      'agent/a.ts: logs the error "it fell", which docs/runbooks.md does not name',
    ]);
  });

  test('names a folder of sources without a page at its door', () => {
    const paths = [
      'agent/main.ts',
      'agent/a/a.ts',
      'agent/a/README.md',
      'sds/proto/generated/a.ts',
    ];
    const files = paths.map((path) => ({ path, text: '' }));
    expect(checkDoors(files)).toEqual([]);
    expect(checkDoors([...files, { path: 'sds/b/b.ts', text: '' }])).toEqual([
      'sds/b: has no README.md that says where to start',
    ]);
  });

  test('names a page of docs/ that no other page links to', () => {
    const files = [
      { path: 'README.md', text: '[a](docs/a.md#a)\n' },
      { path: 'docs/a.md', text: '# A\n' },
      { path: 'docs/b.md', text: '# B\n\n[b](b.md)\n' },
    ];
    expect(checkPages(files)).toEqual(['docs/b.md: no other page links to it']);
  });

  test('agrees on the version', () => {
    const released = '## Unreleased\n\n## 0.2.0\n\n## 0.1.0\n';
    expect([
      checkVersions('0.2.0', '0.2.0', released),
      checkVersions('0.3.0', '0.3.0', released),
    ]).toEqual([[], []]);
    expect(checkVersions('0.1.0', '0.1.0', '## Unreleased\n')).toEqual([]);
    expect(checkVersions('0.1.0', '0.2.0', released)).toEqual([
      'package-lock.json: is of version 0.2.0, package.json of 0.1.0',
      'CHANGELOG.md: its newest release is 0.2.0, package.json has 0.1.0',
    ]);
  });
});

test('the day that no clock may be before lies up to 90 days before the last commit', () => {
  const at = (day: string) => checkSourcesFrom(Date.parse(day), '2026-01-01');
  expect([at('2026-01-01'), at('2026-04-01')]).toEqual([[], []]);
  expect([at('2025-12-31T23:00:00Z'), at('2026-04-02')].map((each) => each.length)).toEqual([1, 1]);
});

describe('the language of the field', () => {
  const LONG = Array.from({ length: 36 }, () => 'word').join(' ');

  test.each([
    ['a log line', 'agent/a.ts', "log.info('the CA knows us', { ca });", '"knows us"'],
    [
      'an error',
      'ca-client/a.ts',
      `throw new AgentError('ERR_BUG', \`sign at \${ca}: nobody answers\`);`,
      '"nobody"',
    ],
    ['a hint', 'sds/a.ts', "const hint = 'ask whoever runs it';", '"whoever"'],
    ['a help text', 'agent/cli/a.ts', "command.description('Turn the key now');", '"turn the key"'],
    ['a string in an inserted value', 'sds/a.ts', `\`a \${b ? 'told of it' : ''} c\`;`, '"told"'],
    ['a phrase over a line end', 'docs/a.md', 'The list is\nlooked\nat again.', '"looked at"'],
    ['a page', 'docs/a.md', 'One.\n\nThe agent is told.', 'docs/a.md:3: says "told"'],
    ['the page of a room', 'agent/a/README.md', 'It is told.', '"told"'],
    ['a long sentence in a hint', 'sds/a.ts', `const hint = '${LONG}';`, 'a sentence of 36 words'],
    ['a long sentence in a page', 'docs/a.md', `One.\n\n${LONG}.`, 'a sentence of 36 words'],
  ])('misses no %s', (_, path, text, problem) => {
    expect(checkWords([{ path, text }])).toEqual([expect.stringContaining(problem)]);
  });

  test.each([
    ['a comment', 'agent/a.ts', "// the agent is told, don't\nconst a = 'issued by it';"],
    ['a quote in a pattern', 'agent/a.ts', "a.replace(/'/g, b); // nobody's\nconst told = 'b';"],
    ['a name', 'agent/a.ts', 'const told = nobody(whoever);'],
    ['a word that holds one', 'agent/a.ts', "log.warn('untold wholes');"],
    ['a test', 'test/a.ts', "log.info('the CA knows us');"],
    ['code in a page', 'docs/a.md', 'Run `told`.\n\n```\nnobody is told\n```'],
    ['two sentences', 'agent/a.ts', `const a = 'one. ${LONG.slice(5)}. two';`],
  ])('leaves %s alone', (_, path, text) => {
    expect(checkWords([{ path, text }])).toEqual([]);
  });
});
