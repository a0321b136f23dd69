import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { buildSync } from 'esbuild';

/** What became of a process that opened a CA directory. */
export interface OpenCaResult {
  /** The last line that it printed: `made SHA256` or `opened SHA256` of the bundle, or `failed CODE MESSAGE`; empty when it was killed. */
  readonly answer: string;
  readonly signal: NodeJS.Signals | null;
}

/** A process that has loaded everything and waits for the word. */
export interface OpenCaProcess {
  /** Makes it open the directory; resolves when it has ended. */
  go(): Promise<OpenCaResult>;
  kill(): void;
}

const ROOT = join(__dirname, '../..');

/** Bundles the program that opens a CA directory, once for all the processes of a test file. Returns its path. */
export function buildOpenCaProgram(outDir: string): string {
  const outfile = join(outDir, 'open-ca.js');
  buildSync({
    entryPoints: [join(ROOT, 'test/support/open-ca-main.ts')],
    bundle: true,
    platform: 'node',
    target: 'node22',
    external: ['chokidar'],
    outfile,
  });
  return outfile;
}

/**
 * Starts the program and waits until it is ready.
 *
 * @param dieAtStep  SIGKILLs itself before its n-th file operation, 1 or more; 0 for never.
 */
export async function startOpenCa(
  program: string,
  dir: string,
  dieAtStep = 0,
): Promise<OpenCaProcess> {
  const child = spawn(join(ROOT, 'node_modules/.bin/node'), [program, dir, String(dieAtStep)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let printed = '';
  await new Promise<void>((ready, failed) => {
    child.once('error', failed);
    child.stdout.on('data', (chunk) => {
      printed += chunk;
      if (printed.startsWith('ready\n')) ready();
    });
    child.once('exit', (code) => failed(new Error(`open-ca ended before it was ready: ${code}`)));
  });
  const ended = exited(child).then((signal) => ({
    answer: printed.slice('ready\n'.length).trim(),
    signal,
  }));
  return {
    go: () => {
      child.stdin.end('go\n');
      return ended;
    },
    kill: () => child.kill('SIGKILL'),
  };
}

function exited(child: ChildProcess): Promise<NodeJS.Signals | null> {
  return new Promise((resolve) => child.once('close', (_, signal) => resolve(signal)));
}
