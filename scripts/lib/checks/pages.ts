import { posix } from 'node:path';
import { isProgram, type SourceFile } from './source-files';

/**
 * What the pages say that is not so: links to files or headings that are not there, and flags, files and metrics that are not ours. Pages of docs/
 * that no page links to.
 *
 * @param files  All of the project's.
 */
export function checkPages(files: readonly SourceFile[]): string[] {
  const pages = files.filter(isPage);
  const sources = files.filter((file) => !isPage(file)).map((file) => file.text);
  const paths = new Map(files.map((file) => [file.path, file]));
  const isThere = (path: string) =>
    paths.has(path) || files.some((file) => file.path.startsWith(`${path}/`));
  return pages.flatMap((page) => [
    ...linksOf(page).flatMap(({ line, target }) => {
      const [place = '', heading] = target.split('#');
      const path =
        place === '' ? page.path : posix.join(posix.dirname(page.path), place).replace(/\/$/, '');
      if (!isThere(path)) return [`${page.path}:${line}: links to ${target}, which is not there`];
      const text = paths.get(path)?.text;
      const isMissing =
        heading !== undefined &&
        text !== undefined &&
        path.endsWith('.md') &&
        !headingsOf(text).includes(heading);
      return isMissing
        ? [`${page.path}:${line}: links to ${target}, a heading that is not there`]
        : [];
    }),
    ...unknownFlags(page, sources),
    ...unknownFiles(page, files),
    ...unknownMetrics(page, sources),
    ...(isOrphan(page, pages) ? [`${page.path}: no other page links to it`] : []),
  ]);
}

/** Folders with sources and no page at their door that says where to start; what a generator wrote has none. */
export function checkDoors(files: readonly SourceFile[]): string[] {
  const paths = new Set(files.map(({ path }) => path));
  const folders = new Set(files.filter(isProgram).map(({ path }) => posix.dirname(path)));
  folders.delete('agent'); // ARCHITECTURE.md is its page.
  return [...folders]
    .filter((folder) => !paths.has(`${folder}/README.md`))
    .map((folder) => `${folder}: has no README.md that says where to start`);
}

/** A page of docs/ that a reader cannot find. */
function isOrphan({ path }: SourceFile, pages: readonly SourceFile[]): boolean {
  const leadsHere = (page: SourceFile) =>
    linksOf(page).some(
      ({ target }) => posix.join(posix.dirname(page.path), target.split('#')[0]!) === path,
    );
  return path.startsWith('docs/') && !pages.some((page) => page.path !== path && leadsHere(page));
}

/** The version of package.json, of package-lock.json and of the newest release in the changelog, where they differ. */
export function checkVersions(version: string, locked: string, changelog: string): string[] {
  const newest = /^## \[?v?(\d+\.\d+\.\d+[\w.-]*)/m.exec(changelog)?.[1];
  const hasUnreleased = /^## \[?Unreleased/m.test(changelog);
  return [
    ...(locked === version
      ? []
      : [`package-lock.json: is of version ${locked}, package.json of ${version}`]),
    ...(newest === version || (hasUnreleased && (newest === undefined || isLater(version, newest)))
      ? []
      : [`CHANGELOG.md: its newest release is ${newest ?? 'none'}, package.json has ${version}`]),
  ];
}

/** `[a](target "title")`, `[a]: target`, and the attributes of HTML. */
const LINKS =
  /\]\(<?([^()\s>]+)>?(?:\s+"[^"]*")?\)|^\s*\[[^\]]+\]:\s+<?([^\s>]+)|(?:src|srcset|href)="([^"\s]+)"/g;

function linksOf(page: SourceFile): { readonly line: number; readonly target: string }[] {
  return page.text
    .split('\n')
    .flatMap((text, index) =>
      [...text.matchAll(LINKS)]
        .map((found) => ({ line: index + 1, target: (found[1] ?? found[2] ?? found[3])! }))
        .filter(({ target }) => !/^[a-z]+:/.test(target)),
    );
}

/** As GitHub names them; a second of the same text gets `-1`. */
function headingsOf(text: string): string[] {
  const seen = new Map<string, number>();
  return [...text.replace(/^```[\s\S]*?^```/gm, '').matchAll(/^#{1,6} +(.*)$/gm)].map(
    ([, heading]) => {
      const name = heading!
        .toLowerCase()
        .replace(/[^\p{L}\p{N}_ -]/gu, '')
        .trim()
        .replaceAll(' ', '-');
      const count = seen.get(name) ?? 0;
      seen.set(name, count + 1);
      return count === 0 ? name : `${name}-${count}`;
    },
  );
}

// A setting's flag stands in its row as `'sds-socket'`, any other as `--force`; flags of other programs are in the scripts that call them.
function unknownFlags(page: SourceFile, sources: readonly string[]): string[] {
  const isKnown = (flag: string) =>
    sources.some((text) => text.includes(flag) || text.includes(`'${flag.slice(2)}'`));
  const known = new Map<string, boolean>();
  return page.text.split('\n').flatMap((text, index) =>
    [...text.matchAll(/(?<![\w-])--[a-z][a-z0-9-]+/g)].flatMap(([flag]) => {
      if (!known.has(flag)) known.set(flag, isKnown(flag) || OTHERS.has(flag));
      return known.get(flag)
        ? []
        : [`${page.path}:${index + 1}: names the flag ${flag}, which no source has`];
    }),
  );
}

/** Sources that a page names in code, by the end of their path, such as `keeper.ts`. What changed once is history: the changelog may name it. */
function unknownFiles(page: SourceFile, files: readonly SourceFile[]): string[] {
  if (page.path === 'CHANGELOG.md') return [];
  const isThere = (name: string) => files.some(({ path }) => `/${path}`.endsWith(`/${name}`));
  return page.text
    .split('\n')
    .flatMap((text, index) =>
      [...text.matchAll(/`([\w./-]+\.(?:ts|mjs|sh))`/g)].flatMap(([, name]) =>
        isThere(name!)
          ? []
          : [`${page.path}:${index + 1}: names the file ${name}, which is not there`],
      ),
    );
}

/** Metrics that no source has, by their whole name or as the key of a row without its prefix. */
function unknownMetrics(page: SourceFile, sources: readonly string[]): string[] {
  const isKnown = (name: string) =>
    sources.some((text) => text.includes(name) || text.includes(`${name.slice(8)}: {`));
  return page.text
    .split('\n')
    .flatMap((text, index) =>
      [...text.matchAll(/\bkeyturn_[a-z_]+[a-z]\b/g)].flatMap(([name]) =>
        isKnown(name)
          ? []
          : [`${page.path}:${index + 1}: names the metric ${name}, which no source has`],
      ),
    );
}

/** Flags of programs that the pages name and no script of ours calls. */
const OTHERS = new Set(['--overwrite', '--retry-delay', '--retry-connrefused']);

function isLater(version: string, than: string): boolean {
  return version.localeCompare(than, 'en', { numeric: true }) > 0;
}

function isPage({ path }: SourceFile): boolean {
  return path.endsWith('.md');
}
