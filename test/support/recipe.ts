import { spawn } from 'node:child_process';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { programCommand } from './program';
import { tempDir } from './temp-dir';

const README = resolve(__dirname, '../../README.md');

/**
 * A recipe of the README, to be followed word by word: the block of commands that stands below a heading.
 *
 * @param index  Which of them; the first is 0.
 */
export function recipeOf(heading: string, index = 0): string {
  const sections = readFileSync(README, 'utf8').split(/^## /m);
  const section = sections.find((each) => each.startsWith(`${heading}\n`));
  const block = [...(section ?? '').matchAll(/^```sh\n(.*?)^```$/gms)][index]?.[1];
  if (block === undefined) throw new Error(`README.md has no recipe ${index} below "${heading}"`);
  return block;
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
