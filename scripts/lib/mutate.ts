import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Mutation, mutate, mutationsOf } from './mutate/mutations';
import { jestArguments, nearTests } from './mutate/near-tests';
import { readSurvivors } from './mutate/survivors';

const SURVIVORS = 'test/survivors.txt';
const BASELINE_MS = 600_000;

const root = process.cwd();
const [every, ...paths] = process.argv.slice(2);
const known = readSurvivors(readFileSync(join(root, SURVIVORS), 'utf8'));
const counts = { killed: 0, lived: 0, known: 0, gone: 0 };

void main();

async function main(): Promise<void> {
  for (const path of paths.flatMap(sourcesIn)) await breakFile(path);
  process.stdout.write(
    `${counts.killed} killed, ${counts.lived} lived, ${counts.known} known to live\n`,
  );
  process.exitCode = counts.lived + counts.gone > 0 ? 1 : 0;
}

function sourcesIn(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path)
    .filter((name) => name !== 'generated')
    .flatMap((name) => sourcesIn(join(path, name)))
    .filter((name) => name.endsWith('.ts'));
}

async function breakFile(path: string): Promise<void> {
  const text = readFileSync(join(root, path), 'utf8');
  const mutations = mutationsOf(text);
  const mayLive = new Set(known.filter((each) => each.path === path).map(({ name }) => name));
  for (const name of mayLive) {
    if (mutations.some((each) => each.name === name)) continue;
    counts.gone += 1;
    process.stderr.write(`GONE    ${SURVIVORS} names what is not there: ${path}: ${name}\n`);
  }
  const rounds = nearTests(root, path);
  const begun = Date.now();
  if (await isNoticed(rounds, undefined, BASELINE_MS))
    throw new Error(`the tests of ${path} fail without a mutant`);
  const withinMs = 30_000 + 5 * (Date.now() - begun);
  const chosen = mutations.filter((_, index) => index % Number(every) === 0);
  process.stderr.write(`--- ${path}: ${chosen.length} mutants, ${rounds.flat().length} files\n`);
  for (const mutation of chosen) {
    const outcome = mayLive.has(mutation.name)
      ? 'known'
      : (await isNoticed(rounds, mutantOf(path, text, mutation), withinMs))
        ? 'killed'
        : 'lived';
    counts[outcome] += 1;
    if (outcome === 'lived')
      process.stderr.write(`LIVES   line ${mutation.line} of ${path}: ${mutation.name}\n`);
  }
}

/** What `transform.cjs` reads. */
function mutantOf(path: string, text: string, mutation: Mutation): string {
  return JSON.stringify({ path: join(root, path), text: mutate(text, mutation) });
}

/** Whether one of the files fails, or does not end in time: an endless loop is noticed too. */
async function isNoticed(
  rounds: readonly (readonly string[])[],
  mutant: string | undefined,
  withinMs: number,
): Promise<boolean> {
  for (const files of rounds) if (!(await passes(files, mutant, withinMs))) return true;
  return false;
}

/** One jest, and at its end all that it started: a mutant may leave anything behind. */
function passes(
  files: readonly string[],
  mutant: string | undefined,
  withinMs: number,
): Promise<boolean> {
  const args = [...jestArguments(root), '--runInBand', '--bail', '--forceExit', '--silent'];
  const child = spawn(process.execPath, [...args, '--runTestsByPath', ...files], {
    cwd: root,
    env: { ...process.env, KEYTURN_MUTANT: mutant },
    stdio: 'ignore',
    detached: true,
  });
  const late = setTimeout(() => endGroup(child.pid), withinMs);
  return new Promise((resolve, reject) => {
    child.once('error', reject).once('exit', (status) => {
      clearTimeout(late);
      endGroup(child.pid);
      resolve(status === 0);
    });
  });
}

function endGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}
