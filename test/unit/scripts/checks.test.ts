import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { checkArrows, readDrawing } from '../../../scripts/lib/checks/arrows';
import { checkForbiddenCalls } from '../../../scripts/lib/checks/forbidden-calls';
import { importsOf } from '../../../scripts/lib/checks/imports';
import { checkPortableText } from '../../../scripts/lib/checks/portable-text';
import { shippedPackageProblems } from '../../../scripts/lib/checks/shipped-packages';
import { checkSourcesFrom } from '../../../scripts/lib/checks/sources-from';

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
  { path: 'agent/config/load.ts', text: "import { a } from '../base/clock';\nconst yaml = await import('yaml');\n" },
  { path: 'ca-client/client.ts', text: "export * from '../agent/base/clock';\n" },
  { path: 'agent/agent.ts', text: "import './config/load';\nimport type { Client } from '../ca-client/client';\n" },
];

const withFile = (path: string, text: string) => [...SOUND.filter((file) => file.path !== path), { path, text }];

describe('the import arrows', () => {
  test('are sound where every import has its arrow and every arrow an import', () => {
    expect(checkArrows(SOUND, DRAWING)).toEqual([]);
  });

  test.each([
    ['an import against an arrow', 'agent/base/log.ts', "import { load } from '../config/load';", 'no arrow agent/base -> agent/config'],
    ['a dynamic one', 'agent/base/log.ts', "await import('../config/load');", 'no arrow agent/base -> agent/config'],
    ['a re-export', 'agent/base/log.ts', "export { load } from '../config/load';", 'no arrow agent/base -> agent/config'],
    ['an import of several lines', 'agent/base/log.ts', "import {\n  load,\n  save,\n} from '../config/load';", 'no arrow'],
    ['code over an arrow for types', 'agent/workload.ts', "import { Client } from '../ca-client/client';", 'is for types only'],
    [
      'a package outside its place',
      'agent/base/log.ts',
      "import { parse } from 'yaml';",
      'the package yaml, which belongs to agent/config',
    ],
    ['a package that nobody named', 'agent/base/log.ts', "import left from '@scope/left-pad/sub';", 'the package @scope/left-pad, which'],
    ['a folder that is not drawn', 'agent/policy/compile.ts', 'export const x = 1;', 'agent/policy/compile.ts belongs to no unit'],
  ])('differ with %s', (_, path, text, want) => {
    expect(checkArrows(withFile(path, text), DRAWING)).toEqual([expect.stringContaining(want)]);
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
    expect(importsOf({ path: 'sds/x.ts', text }).map((each) => each.typesOnly)).toEqual([true, true, false, true, true]);
  });

  test('are drawn in ARCHITECTURE.md', () => {
    const drawing = readDrawing(readFileSync(join(__dirname, '../../../agent/ARCHITECTURE.md'), 'utf8'));
    expect(drawing.units.get('agent/lifecycle')?.get('ca-client')).toBe('types');
    expect(drawing.packages.get('yaml')).toEqual(['agent/base/yaml.ts']);
  });
});

describe('calls that belong to one place', () => {
  test.each([
    ['agent/lifecycle/keeper.ts', 'const now = Date.now();', ['agent/lifecycle/keeper.ts:1: Date.now belongs to agent/base/']],
    ['sds/server.ts', 'let a;\nsetTimeout(f, 1);', ['sds/server.ts:2: setTimeout belongs to agent/base/']],
    ['sds/server.ts', 'process.exit(1)', ['sds/server.ts:1: process.exit belongs to agent/main.ts']],
    ['agent/base/clock.ts', 'Date.now(); setTimeout(f, 1); Math.random();', []],
    ['agent/lifecycle/keeper.ts', '// Date.now is not for us\n/* nor\n Math.random */ const text = "setTimeout";', []],
    ['agent/lifecycle/keeper.ts', 'new Date(at).toISOString()', []],
    ['test/unit/x.test.ts', 'Date.now()', []],
  ])('%s with %j', (path, text, want) => {
    expect(checkForbiddenCalls([{ path, text }])).toEqual(want);
  });
});

describe('text that others will clone', () => {
  test.each([
    ['cd /srv/clones/keyturn/dist', ['a.md:1: holds the path of this clone']],
    [`see ${['', 'home', 'somebody', 'notes'].join('/')}`, ['a.md:1: holds the path of a home directory']],
    [`      "${'resolved'}": "https://example.org/a.tgz",`, ['a.md:1: holds a resolved package address']],
    [`npm --registry https:/${'/registry'}.example.org/`, ['a.md:1: holds the address of a package registry']],
    ['scripts/build, var/run and https://nodejs.org', []],
    ['/srv/clones/keyturn-other/x and ./srv/clones/keyturn/x', []],
  ])('%j', (text, want) => {
    expect(checkPortableText([{ path: 'a.md', text }], '/srv/clones/keyturn')).toEqual(want);
  });
});

test('H17 what ships is little, pinned, and runs nothing when it is installed', () => {
  const sound = { integrity: 'sha512-x' };
  const direct = Object.fromEntries([...Array(10).keys()].map((each) => [`package-${each}`, '1.0.0']));
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
    'package.json: 11 dependencies ship, more than 10',
    'node_modules/b: runs a script when it is installed',
    'node_modules/c: no sha512 in package-lock.json',
  ]);
});

test('the day that no clock may be before lies up to 90 days before the last commit', () => {
  const at = (day: string) => checkSourcesFrom(Date.parse(day), '2026-01-01');
  expect([at('2026-01-01'), at('2026-04-01')]).toEqual([[], []]);
  expect([at('2025-12-31T23:00:00Z'), at('2026-04-02')].map((each) => each.length)).toEqual([1, 1]);
});
