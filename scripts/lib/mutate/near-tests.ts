import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename, join, relative } from 'node:path';

/** Arguments of jest: as package.json has it, with `transform.cjs`, and sources in its view. */
export function jestArguments(root: string): string[] {
  const { jest } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const [[pattern, [, options]]] = Object.entries(jest.transform) as [[string, [string, object]]];
  const config = {
    ...jest,
    rootDir: root,
    roots: ['test', 'agent', 'sds', 'ca-client', 'scripts'].map((folder) => join(root, folder)),
    transform: { [pattern]: [join(root, 'scripts/lib/mutate/transform.cjs'), options] },
  };
  return [join(root, 'node_modules/jest/bin/jest.js'), '--config', JSON.stringify(config)];
}

/**
 * Test files in the order in which they are asked about a source: those that import it, then others
 * of its room that reach it; where there are neither, all that reach it. What runs the built program
 * sees no mutant, so it is not among them.
 *
 * @throws Error when no test reaches it: without a list jest would run every test.
 */
export function nearTests(root: string, path: string): string[][] {
  const [reaching, running] = [related(root, path), related(root, 'test/support/program.ts')];
  const seeing = reaching.filter((file) => !running.includes(file));
  const [room] = path.split('/').slice(path.startsWith('agent/') ? 1 : 0);
  const importing = new RegExp(`/${basename(path, '.ts')}'`);
  const direct = seeing.filter((file) => importing.test(readFileSync(join(root, file), 'utf8')));
  const beside = seeing.filter(
    (file) => file.startsWith(`test/unit/${room}/`) && !direct.includes(file),
  );
  const rounds = [direct, beside].filter((files) => files.length > 0);
  if (rounds.length > 0) return rounds;
  if (seeing.length === 0) throw new Error(`no test reaches ${path}`);
  return [seeing];
}

function related(root: string, path: string): string[] {
  const args = [...jestArguments(root), '--listTests', '--findRelatedTests', join(root, path)];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`jest does not list the tests of ${path}: ${stderr}`);
  return stdout
    .split('\n')
    .filter((line) => line.startsWith('/'))
    .map((line) => relative(root, line))
    .sort();
}
