import { codeOnly, type SourceFile } from './source-files';

/** Rules of biome that a comment may switch off, with its reason, and where: elsewhere the code has to change. */
const MAY_BE_IGNORED: readonly { readonly rule: string; readonly below: RegExp }[] = [
  { rule: 'lint/suspicious/noControlCharactersInRegex', below: /^(agent|sds|ca-client)\// },
  { rule: 'lint/suspicious/noExplicitAny', below: /^test\// },
];

const SILENCERS: readonly { readonly found: RegExp; readonly what: string }[] = [
  { found: /@ts-(?:ignore|expect-error|nocheck)\b/, what: 'switches the compiler off' },
  { found: /\bretryTimes\b/, what: 'runs a test again until it passes' },
  { found: /\b(?:istanbul|c8|v8) ignore\b/, what: 'hides code from coverage' },
];

/** What makes a tool or a test say nothing where it should: each as `path:line: what it does`. */
export function checkSilenced(files: readonly SourceFile[]): string[] {
  return files
    .filter(isSource)
    .flatMap((file) => [
      ...file.text
        .split('\n')
        .flatMap((line, index) =>
          problemsOf(line, file.path).map((problem) => `${file.path}:${index + 1}: ${problem}`),
        ),
      ...emptyCatches(file),
    ]);
}

function problemsOf(line: string, path: string): string[] {
  const [, rule] = /\bbiome-ignore(?:-\w+)? +([\w/]+)/.exec(line) ?? [];
  const mayBe = MAY_BE_IGNORED.some(
    (each) => each.rule === rule && each.below.test(path) && line.includes(`biome-ignore ${rule}`),
  );
  return [
    ...SILENCERS.filter(({ found }) => found.test(line)).map(({ what }) => what),
    ...(rule !== undefined && !mayBe ? [`ignores ${rule}, which may not be ignored here`] : []),
  ];
}

// A comment in the block is a reason, so it is searched in the text; `codeOnly` tells whether it is code at all.
function emptyCatches({ path, text }: SourceFile): string[] {
  const code = codeOnly(text);
  return [...text.matchAll(/\bcatch (?:\(\w+\) )?\{\s*\}/g)]
    .filter(({ index }) => code.startsWith('catch', index))
    .map(
      ({ index }) =>
        `${path}:${text.slice(0, index).split('\n').length}: catches an error and does nothing: say why`,
    );
}

// The checks and their tests name what they look for.
function isSource({ path }: SourceFile): boolean {
  return (
    /\.([mc]?[jt]s)$/.test(path) &&
    !path.includes('/generated/') &&
    !/^scripts\/lib\/checks\/|^test\/unit\/scripts\//.test(path)
  );
}
