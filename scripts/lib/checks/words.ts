import { DIALECT } from './dialect-words';
import { isProgram, type SourceFile } from './source-files';

const MAX_WORDS = 35;

/** A string with at least this much prose is a sentence of a log, an error, a hint or a help text; shorter ones are names and values. */
const PROSE = /[a-z]{2,} [a-z]/i;

/**
 * What operators read, in words they would not search for (`DIALECT`), or in sentences of more than 35 words: the string literals of the
 * program that hold prose, which are its logs, errors, hints and help, and the pages: README.md, docs/ and those of the rooms. Comments are
 * for review.
 */
export function checkWords(files: readonly SourceFile[]): string[] {
  const literals = files
    .filter(isProgram)
    .flatMap((file) => literalsOf(file.text).map((each) => ({ ...each, path: file.path })))
    .filter(({ text }) => PROSE.test(text));
  const paragraphs = files
    .filter(({ path }) => isPage(path))
    .flatMap((file) => paragraphsOf(file.text).map((each) => ({ ...each, path: file.path })));
  return [...literals, ...paragraphs].flatMap(({ path, line, text }) =>
    problemsOf(text).map((problem) => `${path}:${line}: ${problem}`),
  );
}

interface Passage {
  readonly line: number;
  readonly text: string;
}

const RULES = DIALECT.map(([found, write]) => ({
  pattern: new RegExp(`(?<![\\w-])${found.replaceAll(' ', '\\s+')}(?![\\w-])`, 'i'),
  problem: `says "${found}": write ${write}`,
}));

function problemsOf(text: string): string[] {
  const sentences = text.split(/[.!?:;](?:\s+|$)|\n(?=\s|[-*|] )/);
  const long = sentences.find((each) => wordsOf(each) > MAX_WORDS);
  return [
    ...RULES.filter(({ pattern }) => pattern.test(text)).map(({ problem }) => problem),
    ...(long === undefined
      ? []
      : [`has a sentence of ${wordsOf(long)} words, more than ${MAX_WORDS}: split it`]),
  ];
}

function wordsOf(sentence: string): number {
  return sentence.split(/\s+/).filter((word) => /[a-z]/i.test(word)).length;
}

function isPage(path: string): boolean {
  return path === 'README.md' || /^(docs|agent|ca-client|sds|scripts)\/.*\.md$/.test(path);
}

/** Paragraphs, list items and table rows, without code, code blocks and the addresses of links. */
function paragraphsOf(text: string): Passage[] {
  const blank = (found: string) => found.replace(/[^\n]/g, ' ');
  const prose = text
    .replace(/^```[\s\S]*?^```/gm, blank)
    .replace(/<!--[\s\S]*?-->/g, blank)
    .replace(/`[^`\n]*`/g, 'x')
    .replace(/\]\([^)\n]*\)/g, ']');
  let line = 1;
  return prose.split(/\n(?=\s*\n|\s*[-*|#] |\|)/).map((part) => {
    const at = line + (part.length - part.trimStart().length > 0 ? 1 : 0);
    line += part.split('\n').length;
    return { line: at, text: part };
  });
}

/** String literals and the fixed parts of templates, an inserted value as one word. Literals within inserted values are found too. */
function literalsOf(text: string): Passage[] {
  const token =
    /\/\/[^\n]*|\/\*[\s\S]*?\*\/|(?<=[(,=:[!&|?{};>]\s*)\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|\$(?!\{)|[^`\\$])*(?:`|\$\{)|[{}]/g;
  const rest = /(?:\\.|\$(?!\{)|[^`\\$])*(?:`|\$\{)/y;
  const found: Passage[] = [];
  /** Open braces of the program; a template that waits for its inserted value to end. */
  const open: ('{' | Passage)[] = [];
  const lineAt = (index: number) => text.slice(0, index).split('\n').length;
  const continueTemplate = (passage: Passage, part: string) => {
    const grown = { ...passage, text: `${passage.text}${part.replace(/`$|\$\{$/, '')}` };
    if (part.endsWith('`')) found.push(unescaped(grown));
    else open.push({ ...grown, text: `${grown.text}x` });
  };
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    const [word] = match;
    if (word.startsWith('/')) continue; // A comment or a regular expression.
    if (word === '{') open.push('{');
    else if (word === '}') {
      const closed = open.pop();
      if (closed === undefined || closed === '{') continue;
      rest.lastIndex = token.lastIndex;
      const part = rest.exec(text)?.[0];
      if (part === undefined) continue;
      token.lastIndex = rest.lastIndex;
      continueTemplate(closed, part);
    } else if (word.startsWith('`'))
      continueTemplate({ line: lineAt(match.index), text: '' }, word.slice(1));
    else found.push(unescaped({ line: lineAt(match.index), text: word.slice(1, -1) }));
  }
  return found;
}

function unescaped({ line, text }: Passage): Passage {
  return { line, text: text.replaceAll('\\n', '\n').replace(/\\(.)/g, '$1') };
}
