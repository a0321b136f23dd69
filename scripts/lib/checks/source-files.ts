import { execFileSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** A file of the project, as its checks see it. */
export interface SourceFile {
  /** From the root of the project, with forward slashes. */
  readonly path: string;
  readonly text: string;
  /** Whether its owner may run it. */
  readonly executable?: boolean;
}

/** Every file that git tracks or would track, sorted by path: what is ignored is nobody's to check. Binary files are left out. */
export function projectFiles(root: string): SourceFile[] {
  const listing = execFileSync(
    'git',
    ['ls-files', '-z', '--cached', '--others', '--exclude-standard'],
    { cwd: root, encoding: 'utf8' },
  );
  const paths = [...new Set(listing.split('\0').filter((path) => path !== ''))].sort();
  return paths.flatMap((path) => {
    const text = readText(join(root, path));
    return text === undefined
      ? []
      : [{ path, text, executable: (statSync(join(root, path)).mode & 0o100) !== 0 }];
  });
}

/** Programs by their first line that may not be run, and files that may be and are none. */
export function checkModes(files: readonly SourceFile[]): string[] {
  return files.flatMap(({ path, text, executable }) => {
    if (text.startsWith('#!') === executable) return [];
    return [
      executable
        ? `${path}: is executable and has no #! line`
        : `${path}: has a #! line and is not executable: chmod +x`,
    ];
  });
}

/** The program itself: TypeScript of the agent, not of its tests or scripts, and not what a generator wrote. */
export function isProgram(file: SourceFile): boolean {
  return /^(agent|sds|ca-client)\/.*\.ts$/.test(file.path) && !isGenerated(file);
}

export function isGenerated(file: SourceFile): boolean {
  return file.path.includes('/generated/');
}

/**
 * The text with comments and strings blanked out, so that a search meets only code, and what it finds
 * stands where it stands in the text. A quote inside a regular expression is taken for a string: the
 * rest of its line may be missed.
 */
export function codeOnly(text: string): string {
  const noise = /'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|\/\/[^\n]*|\/\*[\s\S]*?\*\//g;
  return text.replace(noise, (found) =>
    found.startsWith('/') ? found.replace(/[^\n]/g, ' ') : `'${' '.repeat(found.length - 2)}'`,
  );
}

function readText(path: string): string | undefined {
  try {
    const bytes = readFileSync(path);
    return bytes.includes(0) ? undefined : bytes.toString('utf8');
  } catch {
    // Listed by git but gone from the tree: a deletion that is not committed yet.
    return undefined;
  }
}
