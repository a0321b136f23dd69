import { homedir } from 'node:os';
import type { SourceFile } from './source-files';

/** Paths of the machine, addresses of package mirrors, private keys and conflict markers that got into a file that others will clone. */
export function checkPortableText(files: readonly SourceFile[], root: string): string[] {
  const rules: readonly { readonly name: string; readonly found: RegExp }[] = [
    { name: 'the path of this clone', found: pathPattern(root) },
    { name: 'the path of a home directory', found: pathPattern(homedir()) },
    { name: 'the path of a home directory', found: /(?<![\w.})-])\/(?:home|Users)\/[a-z][\w-]*\// },
    {
      name: 'the address of a package registry',
      found: /https?:\/\/[\w.-]*\b(?:registry|artifactory|nexus|mirror|pypi)\b/i,
    },
    { name: 'the address of a package registry', found: /\bregistry\s*=\s*["']?https?:/i },
    { name: 'a resolved package address', found: /^\s*"resolved": "(?:http|git)/ },
    { name: 'a package from a repository', found: /\bgit\+(?:ssh|https?|file):|\bgit@[\w.-]+:/ },
    { name: 'a conflict marker', found: /^(?:<{7}|>{7}|\|{7})(?: |$)/ },
  ];
  return files.flatMap((file) => [
    ...file.text
      .split('\n')
      .flatMap((line, index) =>
        rules
          .filter((rule) => rule.found.test(line))
          .map((rule) => `${file.path}:${index + 1}: holds ${rule.name}`),
      ),
    ...[...file.text.matchAll(PRIVATE_KEY)].map(
      ({ index }) =>
        `${file.path}:${file.text.slice(0, index).split('\n').length}: holds a private key`,
    ),
  ]);
}

// With some base64 below: tests and sources name the label alone. In a string the line ends as `\n`.
const PRIVATE_KEY =
  /-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----(?:\s|\\n|['"+,])*[A-Za-z0-9+/]{40}/g;

// As a whole path, not as the tail or head of another: `/app` must not find `test/app` or `/apple`.
function pathPattern(path: string): RegExp {
  return new RegExp(`(?<![\\w.})-]|[\\w})]")${path.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}(?=/)`);
}
