/**
 * One command of a transcript and what it has to answer.
 *
 * A transcript reads as a terminal does: `$ NAME=value keyturn ...` is a command; the lines below it are its standard output, `2> ` marks
 * standard error, `! 64` the exit code (0 where it is missing). `...` stands for any number of lines, `<*>` for anything within one,
 * two spaces or more for any number from two.
 * `+ NAME` makes a file of the lines below it that begin with `| `. `#` begins a comment. Words have no spaces in them unless quoted by ".
 */
export interface Scene {
  readonly line: number;
  readonly files: readonly { readonly name: string; readonly text: string }[];
  readonly env: Readonly<Record<string, string>>;
  readonly argv: readonly string[];
  readonly stdout: readonly string[];
  readonly stderr: readonly string[];
  readonly code: number;
}

export function parseTranscript(text: string): Scene[] {
  const scenes: Scene[] = [];
  let files: { name: string; text: string }[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    const scene = scenes.at(-1);
    if (line.startsWith('#') || line === '') continue;
    if (line.startsWith('+ ')) files.push({ name: line.slice(2), text: '' });
    else if (line.startsWith('| ') && files.length > 0) files.at(-1)!.text += `${line.slice(2)}\n`;
    else if (line.startsWith('$ ')) {
      scenes.push({
        line: index + 1,
        files,
        stdout: [],
        stderr: [],
        code: 0,
        ...parseCommand(line.slice(2)),
      });
      files = [];
    } else if (!scene) throw new Error(`line ${index + 1}: nothing was run yet`);
    else if (line.startsWith('2> ')) (scene.stderr as string[]).push(line.slice(3));
    else if (line.startsWith('! ')) (scene as { code: number }).code = Number(line.slice(2));
    else (scene.stdout as string[]).push(line);
  }
  return scenes;
}

function parseCommand(line: string): { env: Record<string, string>; argv: string[] } {
  const words = [...line.matchAll(/(?:[^\s"]|"[^"]*")+/g)].map(([word]) =>
    word.replaceAll('"', ''),
  );
  const start = words.indexOf('keyturn');
  const env = Object.fromEntries(
    words.slice(0, start).map((word) => word.split(/=(.*)/s).slice(0, 2) as [string, string]),
  );
  return { env, argv: words.slice(start + 1) };
}

/** Expected lines as one pattern for the whole text. */
export function linesPattern(lines: readonly string[]): RegExp {
  const literally = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const body = lines
    .map((line) =>
      line === '...'
        ? '(?:.*\\n)*?'
        : `${line.split('<*>').map(literally).join('.*').replace(/ {2,}/g, ' {2,}')}\\n`,
    )
    .join('');
  return new RegExp(`^${body}$`);
}
