import { spawn } from 'node:child_process';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { programCommand } from './program';
import { tempDir } from './temp-dir';

const ROOT = resolve(__dirname, '../..');

/**
 * A recipe of a page, to be followed word by word: the blocks of commands that stand below a heading, as one.
 *
 * @param page  From the root of the project, e.g. `docs/machine.md`.
 */
export function recipeOf(page: string, heading: string): string {
  const sections = readFileSync(join(ROOT, page), 'utf8').split(/^## /m);
  const section = sections.find((each) => each.startsWith(`${heading}\n`));
  const blocks = [...(section ?? '').matchAll(/^```sh\n(.*?)^```$/gms)];
  if (blocks.length === 0) throw new Error(`${page} has no recipe below "${heading}"`);
  return blocks.map(([, commands]) => commands).join('\n');
}

/** A shell that follows a recipe, with all that it has started. */
export interface Cook {
  /** What was written so far, to both outputs. */
  said(): string;
  /** Resolves with its end; fails where one of its commands did. */
  readonly done: Promise<void>;
  /** Ends all of it. */
  stop(): Promise<void>;
}

/** @param programs  Further ones that the recipe calls, by name, beside `keyturn`. */
export function follow(
  recipe: string,
  options: {
    readonly cwd: string;
    readonly env: NodeJS.ProcessEnv;
    readonly programs: Readonly<Record<string, string>>;
  },
): Cook {
  const bin = tempDir();
  for (const [name, command] of Object.entries({
    ...options.programs,
    keyturn: programCommand().join("' '"),
  })) {
    writeFileSync(join(bin, name), `#!/bin/sh\nexec '${command}' "$@"\n`);
    chmodSync(join(bin, name), 0o755);
  }
  const shell = spawn('/bin/sh', ['-ec', recipe], {
    cwd: options.cwd,
    env: { ...options.env, PATH: `${bin}${delimiter}${options.env.PATH}` },
    // A group of its own: the recipe leaves processes behind it.
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [shell.stdout, shell.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
  }
  const closed = new Promise<number | null>((done) => shell.on('close', done));
  const done = closed.then((code) => {
    if (code !== 0) throw new Error(`the recipe ended with ${code}:\n${said}`);
  });
  // Whoever stops it need not look.
  done.catch(() => undefined);
  return {
    said: () => said,
    done,
    stop: async () => {
      end(shell.pid!, 'SIGTERM');
      const late = setTimeout(() => end(shell.pid!, 'SIGKILL'), 5_000);
      await closed;
      clearTimeout(late);
    },
  };
}

function end(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-group, signal);
  } catch {
    // All of it has ended by itself.
  }
}
