import { type ChildProcess, spawn } from 'node:child_process';
import { join, resolve } from 'node:path';
import { buildSync } from 'esbuild';
import { tempDir } from './temp-dir';

const ROOT = resolve(__dirname, '..', '..');

/**
 * Bundles TypeScript into one file that a child process can run, and returns its path. It is removed with the test's other files.
 *
 * @param source  The program; it imports from the root of the repository, e.g. `./agent/base/atomic-dir`.
 */
export function bundle(source: string): string {
  const outfile = join(tempDir(), 'child.cjs');
  buildSync({
    stdin: { contents: source, resolveDir: ROOT, loader: 'ts' },
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node22',
    outfile,
    logLevel: 'error',
  });
  return outfile;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Starts a bundle with the runtime of the tests. */
export function start(
  file: string,
  args: readonly string[] = [],
): { readonly process: ChildProcess; readonly exited: Promise<Exit> } {
  const child = spawn(process.execPath, [file, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const text = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk) => (text.stdout += chunk));
  child.stderr.on('data', (chunk) => (text.stderr += chunk));
  const exited = new Promise<Exit>((done, failed) => {
    child.on('error', failed);
    child.on('close', (code, signal) => done({ code, signal, ...text }));
  });
  return { process: child, exited };
}

/** Runs a bundle to its end. */
export function run(file: string, args: readonly string[] = []): Promise<Exit> {
  return start(file, args).exited;
}
