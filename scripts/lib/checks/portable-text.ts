import { homedir } from 'node:os';
import type { SourceFile } from './source-files';

/** Paths of the machine and addresses of package mirrors that got into a file that others will clone. */
export function checkPortableText(files: readonly SourceFile[], root: string): string[] {
  const rules: readonly { readonly name: string; readonly found: RegExp }[] = [
    { name: 'the path of this clone', found: pathPattern(root) },
    { name: 'the path of a home directory', found: pathPattern(homedir()) },
    { name: 'the path of a home directory', found: /(?<![\w.})-])\/(?:home|Users)\/[a-z][\w-]*\// },
    { name: 'the address of a package registry', found: /https?:\/\/[\w.-]*\b(?:registry|artifactory|nexus|mirror|pypi)\b/i },
    { name: 'a resolved package address', found: /^\s*"resolved": "http/ },
  ];
  return files.flatMap((file) =>
    file.text
      .split('\n')
      .flatMap((line, index) =>
        rules.filter((rule) => rule.found.test(line)).map((rule) => `${file.path}:${index + 1}: holds ${rule.name}`),
      ),
  );
}

// As a whole path, not as the tail or head of another: `/app` must not find `test/app` or `/apple`.
function pathPattern(path: string): RegExp {
  return new RegExp(`(?<![\\w.})"-])${path.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}(?=/)`);
}
