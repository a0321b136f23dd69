import type { YamlDocument } from '../base/yaml';
import type { TextEdit, YamlPlaces } from './yaml-places';

/** Comment lines, behind empty ones. */
const COMMENTS = /(?:[ \t]*\r?\n)*((?:[ \t]+#[^\n]*(?:\n|$))+)/y;

/**
 * Where lines go, a comment that stood deep behind them may come to stand behind a block scalar (`|`), whose text it would become. It is
 * moved to the left then, to the column of the first that went.
 *
 * @param edits  Of the same object; those that remove have an empty `by`.
 * @see          YAML 1.2.2, section 8.1.1.2: a block scalar ends at the first line that is less indented.
 */
export function reindentComments(at: YamlPlaces, edits: readonly TextEdit[]): TextEdit[] {
  const sorted = edits.toSorted((one, other) => one.start - other.start);
  const moved: TextEdit[] = [];
  // Where the lines begin that go in one piece; undefined where something new takes their place.
  let from: number | undefined;
  for (const [index, { start, end, by }] of sorted.entries()) {
    if (by !== '') from = undefined;
    else if (sorted[index - 1]?.end !== start) from = start;
    if (from === undefined || sorted[index + 1]?.start === end) continue;
    const comments = commentsAt(at.stream.text, end);
    const column = columnAt(at.stream.text, from);
    if (comments === undefined || columnAt(comments.lines, 0) <= column) continue;
    const deepest = blockScalarsOf(at).get(from);
    if (deepest !== undefined && columnAt(comments.lines, 0) >= deepest)
      moved.push({ ...comments, by: outdented(comments.lines, column) });
  }
  return moved;
}

/** By where each block scalar of a document ends: the column from which on lines would belong to it. Made once, for documents of many pods. */
const blockScalars = new WeakMap<YamlDocument, ReadonlyMap<number, number>>();

function blockScalarsOf({
  document,
  stream: { yaml, text },
}: YamlPlaces): ReadonlyMap<number, number> {
  const known = blockScalars.get(document);
  if (known) return known;
  const found = new Map<number, number>();
  yaml.visit(document, {
    Scalar: (_, { type, range }) => {
      if ((type !== 'BLOCK_LITERAL' && type !== 'BLOCK_FOLDED') || !range) return;
      const [, ...lines] = text.slice(range[0], range[1]).split('\n');
      const columns = lines.filter((line) => line.trim() !== '').map((line) => columnAt(line, 0));
      // Without any line of its own, the first that follows decides.
      found.set(
        range[1],
        columns.length === 0 ? 0 : columns.reduce((least, column) => Math.min(least, column)),
      );
    },
  });
  blockScalars.set(document, found);
  return found;
}

function commentsAt(
  text: string,
  offset: number,
): { readonly start: number; readonly end: number; readonly lines: string } | undefined {
  COMMENTS.lastIndex = offset;
  const lines = COMMENTS.exec(text)?.[1];
  if (lines === undefined) return undefined;
  const end = COMMENTS.lastIndex;
  return { start: end - lines.length, end, lines };
}

function outdented(lines: string, column: number): string {
  return lines.replace(/^[ \t]+/gm, (spaces) => spaces.slice(0, column));
}

function columnAt(text: string, offset: number): number {
  const spaces = /[ ]*/y;
  spaces.lastIndex = offset;
  return spaces.exec(text)![0].length;
}
