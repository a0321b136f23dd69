import { posix } from 'node:path';
import { codeOnly, type SourceFile } from './source-files';

/** One import of a file: of another file of ours (its path without extension), of a package, or of a builtin module (`node:...`). */
export interface Import {
  readonly from: string;
  readonly to: string;
  readonly kind: 'ours' | 'package' | 'builtin';
  readonly typesOnly: boolean;
}

/** Every static, dynamic, re-exporting and type import. Our sources are formatted by one formatter, so a regular expression reads them. */
export function importsOf(file: SourceFile): Import[] {
  const found: Import[] = [];
  const statement = /^\s*(?:import|export)\s+(type\s)?([^'";]*?\sfrom\s+)?'([^'\n]+)'/gm;
  for (const [, type, names, target] of file.text.matchAll(statement)) {
    found.push(describe(file, target!, type !== undefined || isTypesOnly(names)));
  }
  const call = /(typeof\s+)?\bimport\((?:\n\s*)?'([^'\n]+)',?\s*\)(\.[A-Z])?/g;
  for (const [, type, target, member] of file.text.matchAll(call))
    found.push(describe(file, target!, (type ?? member) !== undefined));
  return found;
}

/** Lines that load code in a way that `importsOf` does not read: `path:line: ...`. */
export function unreadableImports(file: SourceFile): string[] {
  const code = codeOnly(file.text);
  return [
    ...code.matchAll(/\brequire\b\s*[(.]|\bcreateRequire\b|\bimport\((?!(?:\n\s*)?' *',?\s*\))/g),
  ].map(
    ({ index }) =>
      `${file.path}:${code.slice(0, index).split('\n').length}: loads code other than by import or import('...'), which the arrows cannot follow`,
  );
}

// `import { type A, type B } from` is as free of code as `import type { A, B } from`.
function isTypesOnly(names: string | undefined): boolean {
  const listed = /^\{([^}]*)\}\s+from\s+$/.exec(names ?? '')?.[1];
  if (listed === undefined) return false;
  const each = listed.split(',').filter((name) => name.trim() !== '');
  return each.length > 0 && each.every((name) => /^\s*type\s/.test(name));
}

function describe(file: SourceFile, target: string, typesOnly: boolean): Import {
  if (target.startsWith('.'))
    return {
      from: file.path,
      to: posix.join(posix.dirname(file.path), target),
      kind: 'ours',
      typesOnly,
    };
  if (target.startsWith('node:'))
    return { from: file.path, to: target, kind: 'builtin', typesOnly };
  const name = target
    .split('/')
    .slice(0, target.startsWith('@') ? 2 : 1)
    .join('/');
  return { from: file.path, to: name, kind: 'package', typesOnly };
}
