import { isProgram, type SourceFile } from './source-files';

const RUNBOOKS = 'docs/runbooks.md';
/** The sentence of `log.error(...)`, as far as it is a literal. */
const ERRORS = /\blog\s*\.error\(\s*'([^'\n]+)'/g;

/** Sentences that the program logs at level error, a duty that it is failing now, and that no runbook names: what is an operator to do? */
export function checkRunbooks(files: readonly SourceFile[]): string[] {
  const runbooks = files.find(({ path }) => path === RUNBOOKS)?.text ?? '';
  return files
    .filter(isProgram)
    .flatMap(({ path, text }) =>
      [...text.matchAll(ERRORS)].flatMap(([, sentence]) =>
        runbooks.includes(`\`${sentence}\``)
          ? []
          : [`${path}: logs the error "${sentence}", which ${RUNBOOKS} does not name`],
      ),
    );
}
