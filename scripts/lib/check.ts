import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { checkArrows, readDrawing } from './checks/arrows';
import { checkDroppedAwaits } from './checks/dropped-awaits';
import { checkForbiddenCalls } from './checks/forbidden-calls';
import { checkLicences } from './checks/licences';
import { checkDoors, checkPages, checkVersions } from './checks/pages';
import { checkPortableText } from './checks/portable-text';
import { checkRunbooks } from './checks/runbooks';
import { checkShippedPackages } from './checks/shipped-packages';
import { checkSilenced } from './checks/silenced';
import { checkModes, projectFiles } from './checks/source-files';
import { checkSourcesFrom } from './checks/sources-from';
import { checkWords } from './checks/words';

/** Each check answers with what is wrong, as lines; none is good. `skip` says why it could not be made. */
type Outcome = { readonly problems: readonly string[] } | { readonly skip: string };

const root = process.cwd();
const files = projectFiles(root);

const CHECKS: readonly (readonly [name: string, check: () => Outcome])[] = [
  ['types', () => run('node_modules/.bin/tsc', ['-p', '.'])],
  ['format and lint', () => run('node_modules/.bin/biome', ['check', '--error-on-warnings', '.'])],
  ['no dropped promises', () => ({ problems: checkDroppedAwaits(files) })],
  ['nothing silenced', () => ({ problems: checkSilenced(files) })],
  [
    'shell syntax',
    () => ({ problems: shellScripts().flatMap((path) => problemsOf(run('bash', ['-n', path]))) }),
  ],
  ['shell scripts by shellcheck', shellcheck],
  ['programs are executable', () => ({ problems: checkModes(files) })],
  [
    'import arrows as drawn in agent/ARCHITECTURE.md',
    () => ({
      problems: checkArrows(
        files,
        readDrawing(readFileSync(join(root, 'agent/ARCHITECTURE.md'), 'utf8')),
      ),
    }),
  ],
  ['time, chance and exit only at home', () => ({ problems: checkForbiddenCalls(files) })],
  [
    'no unused files, exports or dependencies',
    () => run('node_modules/.bin/knip', ['--no-progress']),
  ],
  [
    'no exports that only tests use',
    () => run('node_modules/.bin/knip', ['--no-progress', '--production']),
  ],
  [
    'generated code and the table of settings are current',
    () => run('scripts/generate', ['--check']),
  ],
  [
    'what ships is little, pinned, and runs nothing when installed',
    () => ({ problems: checkShippedPackages(root) }),
  ],
  ['licences of what ships', () => ({ problems: checkLicences(root) })],
  ['the clock is held against a recent day', sourcesFrom],
  ['no known vulnerability in what ships', audit],
  ['pages link to what is there and name flags, files and metrics that are', pages],
  ['each error of the log has a runbook', () => ({ problems: checkRunbooks(files) })],
  [
    'logs, errors, hints, help and docs speak the language of the field',
    () => ({ problems: checkWords(files) }),
  ],
  ['no machine paths or registry addresses', () => ({ problems: checkPortableText(files, root) })],
];

let [passed, failed, skipped] = [0, 0, 0];
for (const [name, check] of CHECKS) {
  const begun = Date.now();
  const outcome = check();
  const took = `${((Date.now() - begun) / 1000).toFixed(1)} s`;
  if ('skip' in outcome) {
    skipped += 1;
    process.stderr.write(`SKIPPED ${name}: ${outcome.skip}\n`);
  } else if (outcome.problems.length === 0) {
    passed += 1;
    process.stderr.write(`ok      ${name} (${took})\n`);
  } else {
    failed += 1;
    process.stderr.write(
      `FAILED  ${name} (${took})\n${outcome.problems.map((line) => `        ${line}\n`).join('')}`,
    );
  }
}
process.stdout.write(`${passed} passed, ${failed} failed, ${skipped} skipped\n`);
process.exitCode = failed === 0 ? 0 : 1;

function sourcesFrom(): Outcome {
  const { stdout, status } = spawnSync('git', ['log', '-1', '--format=%ct'], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0)
    return {
      skip: 'this is no clone of the repository, so nothing says how old the sources are; make one with git clone',
    };
  return { problems: checkSourcesFrom(Number(stdout) * 1_000) };
}

function shellcheck(): Outcome {
  if (spawnSync('shellcheck', ['--version']).error)
    return { skip: 'shellcheck is missing; install it with: apt-get install shellcheck' };
  return run('shellcheck', [
    '--external-sources',
    '--source-path=SCRIPTDIR',
    '--format=gcc',
    ...shellScripts(),
  ]);
}

function pages(): Outcome {
  const read = (path: string) => readFileSync(join(root, path), 'utf8');
  const [{ version }, { version: locked }] = [
    JSON.parse(read('package.json')),
    JSON.parse(read('package-lock.json')),
  ];
  return {
    problems: [
      ...checkPages(files),
      ...checkDoors(files),
      ...checkVersions(version, locked, read('CHANGELOG.md')),
    ],
  };
}

function run(command: string, args: readonly string[]): Outcome {
  const done = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  if (done.error) return { problems: [`${command}: ${done.error.message}`] };
  if (done.status === 0) return { problems: [] };
  const said = `${done.stdout}${done.stderr}`.trimEnd().split('\n');
  return { problems: [...said, `${command} ended with ${done.status ?? done.signal}`] };
}

function problemsOf(outcome: Outcome): readonly string[] {
  return 'problems' in outcome ? outcome.problems : [];
}

function shellScripts(): string[] {
  return files
    .filter((file) => /^#!.*\b(ba)?sh\b/.test(file.text) || file.path.endsWith('.sh'))
    .map((file) => file.path);
}

/** Asks the registry. Machines without one, and mirrors that do not offer the question, leave it unanswered. */
function audit(): Outcome {
  const done = spawnSync('npm', ['audit', '--omit=dev', '--json'], {
    cwd: root,
    encoding: 'utf8',
    timeout: 60_000,
    input: '',
  });
  const report = parseReport(done.stdout);
  if (report?.vulnerabilities === undefined)
    return { skip: 'the registry does not answer npm audit' };
  return {
    problems: Object.values(report.vulnerabilities).map(
      (each) => `${each.name} (${each.range}): severity ${each.severity}`,
    ),
  };
}

interface AuditReport {
  readonly vulnerabilities?: Readonly<
    Record<string, { readonly name: string; readonly range: string; readonly severity: string }>
  >;
}

function parseReport(text: string): AuditReport | undefined {
  try {
    return JSON.parse(text) as AuditReport;
  } catch {
    return undefined;
  }
}
