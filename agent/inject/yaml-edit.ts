import type { BlockWriter } from './block-writer';
import type { Change, Path } from './changes';
import { reindentComments } from './reindent-comments';
import type { TextEdit, YamlPlaces } from './yaml-places';

/**
 * The changes of one object as edits of its text, so that everything else in it stays to the octet: comments, order, anchors, quotes,
 * indentation. What is added is written in the style around it: blocks at the same indentation, or JSON within `{}` and `[]`.
 *
 * @param changes  Of the document's value, all paths those before the changes.
 * @throws         AgentError of `places.refuse` where a change is in what an alias or a merge stands for: it would be one elsewhere too.
 */
export function yamlEdits(
  places: YamlPlaces,
  changes: readonly Change[],
  blocks: BlockWriter,
): TextEdit[] {
  const removed = new Set(
    changes.filter(({ kind }) => kind === 'remove').map(({ path }) => JSON.stringify(path)),
  );
  const editor = new Editor(places, blocks, removed);
  const edits = changes.flatMap((change) => editor.edits(change));
  return [...edits, ...reindentComments(places, edits)];
}

/** The text with all edits made; they must not overlap. Those at one place stand in their order. */
export function editText(text: string, edits: readonly TextEdit[]): string {
  const sorted = edits.toSorted((one, other) => one.start - other.start);
  const parts: string[] = [];
  let at = 0;
  for (const { start, end, by } of sorted) {
    parts.push(text.slice(at, start), by);
    at = end;
  }
  return [...parts, text.slice(at)].join('');
}

class Editor {
  private readonly eol: string;

  constructor(
    private readonly at: YamlPlaces,
    private readonly blocks: BlockWriter,
    /** Paths of what goes, as JSON. */
    private readonly removed: ReadonlySet<string>,
  ) {
    this.eol = /^[^\n]*\r\n/.test(at.stream.text) ? '\r\n' : '\n';
  }

  edits({ kind, path, ...rest }: Change): TextEdit[] {
    const value = 'value' in rest ? rest.value : undefined;
    const parent = path.slice(0, -1);
    const last = path.at(-1)!;
    if (kind === 'set') return this.set(path, value);
    if (kind === 'remove') return this.remove(parent, last, path);
    return typeof last === 'number'
      ? this.addItem(parent, last, value, path)
      : this.addMember(parent, last, value, path);
  }

  private addMember(parent: Path, key: string, value: unknown, path: Path): TextEdit[] {
    const { yaml } = this.at.stream;
    const map = this.at.node(parent, path);
    if (!yaml.isMap(map)) throw this.at.refuse(path);
    if (!map.flow)
      return [
        this.insertAt(this.at.endOf(map), this.block({ [key]: value }, this.at.indentOf(map))),
      ];
    return [
      this.insertInFlow(map.items.at(-1), `${JSON.stringify(key)}: ${JSON.stringify(value)}`),
    ];
  }

  private addItem(parent: Path, index: number, value: unknown, path: Path): TextEdit[] {
    const { yaml } = this.at.stream;
    const list = this.at.node(parent, path);
    if (!yaml.isSeq(list)) throw this.at.refuse(path);
    if (list.flow) {
      if (this.keepsBefore(list.items, parent, index))
        return [this.insertInFlow(list.items[index - 1], JSON.stringify(value))];
      const start = this.at.startOf(list.items[index], path);
      return [{ start, end: start, by: `${JSON.stringify(value)}, ` }];
    }
    // Before the comments of the first item, which belong to it.
    const at =
      index === 0
        ? this.at.lineEnd(this.at.startOf(this.at.pair(parent, path), path))
        : this.at.endOf(list.items[index - 1]);
    return [this.insertAt(at, this.block([value], this.at.indentOf(list)))];
  }

  private set(path: Path, value: unknown): TextEdit[] {
    const { yaml } = this.at.stream;
    if (typeof value === 'object' && value !== null) return this.fill(path, value, path);
    const node = this.at.node(path, path);
    if (!yaml.isScalar(node) || !node.range) throw this.at.refuse(path);
    const [start, end] = node.range;
    if (!this.at.isInBlock(path)) return [{ start, end, by: JSON.stringify(value) }];
    const { key } = this.at.pair(path, path);
    const [first, ...rest] = this.block({ x: value }, this.at.columnOf(key, path)).split(/(?<=\n)/);
    // A block scalar ends with its line; what follows another one on its line is a comment, or nothing.
    const isBlock = node.type === 'BLOCK_LITERAL' || node.type === 'BLOCK_FOLDED';
    const by = `${first!.trimStart().slice('x: '.length)}${rest.join('')}`;
    if (rest.length === 0) return [{ start, end, by: isBlock ? by : by.trimEnd() }];
    return [{ start, end: isBlock ? end : this.at.lineEnd(end), by }];
  }

  /** Gives a key whose value is empty (nothing, null, `{}` or `[]`) a value of its own lines. */
  private fill(path: Path, value: unknown, full: Path): TextEdit[] {
    const { yaml } = this.at.stream;
    const node = this.at.node(path, full);
    const isEmpty = yaml.isScalar(node)
      ? node.value === null
      : yaml.isCollection(node) && node.items.length === 0;
    if (!isEmpty || !node?.range || node.anchor !== undefined || node.tag !== undefined)
      throw this.at.refuse(full);
    const [start, end] = node.range;
    if (!this.at.isInBlock(path)) return [{ start, end, by: JSON.stringify(value) }];
    const { key } = this.at.pair(path, full);
    const column = this.at.columnOf(key, full);
    const [, ...lines] = this.block({ x: value }, column).split(/(?<=\n)/);
    const at = this.at.lineEnd(Math.max(end, start));
    return [...(end > start ? [{ start, end, by: '' }] : []), this.insertAt(at, lines.join(''))];
  }

  private remove(parent: Path, last: string | number, path: Path): TextEdit[] {
    const { yaml } = this.at.stream;
    const holder = this.at.node(parent, path);
    if (!yaml.isCollection(holder)) throw this.at.refuse(path);
    const index =
      typeof last === 'number'
        ? last
        : holder.items.findIndex((item) => this.at.isNamed(item, last));
    const item = holder.items[index];
    if (item === undefined) throw this.at.refuse(path);
    if (holder.flow)
      return [
        this.removeFromFlow(
          holder.items,
          index,
          path,
          this.keepsBefore(holder.items, parent, index),
        ),
      ];
    const from = yaml.isPair(item)
      ? this.at.startOf(item.key, path)
      : this.at.dashOf(holder, index, path);
    const start = this.at.lineStart(from);
    if (this.at.stream.text.slice(start, from).trim() !== '')
      return [this.removeFirst(holder.items, index, from, path)];
    return [{ start, end: this.at.endOf(item), by: '' }];
  }

  /** What stands on the line of a `-`: the next key, or the comment before that, takes its place there. */
  private removeFirst(
    items: readonly unknown[],
    index: number,
    start: number,
    path: Path,
  ): TextEdit {
    if (items[index + 1] === undefined) throw this.at.refuse(path);
    const after = this.at.endOf(items[index]);
    const spaces = /^\s*/.exec(
      this.at.stream.text.slice(after, this.at.startOf(items[index + 1], path)),
    )![0];
    return { start, end: after + spaces.length, by: '' };
  }

  /** With the comma before it where an item stays before it, else with the one after it. */
  private removeFromFlow(
    items: readonly unknown[],
    index: number,
    path: Path,
    follows: boolean,
  ): TextEdit {
    const [start, end] = [this.at.startOf(items[index], path), this.at.valueEnd(items[index])];
    if (follows) return { start: this.at.valueEnd(items[index - 1]), end, by: '' };
    return {
      start,
      end: index + 1 < items.length ? this.at.startOf(items[index + 1], path) : end,
      by: '',
    };
  }

  /** Lines of YAML at an indentation, each ended. Lists begin as deep as others of the same document. */
  private block(value: unknown, column: number): string {
    const lines = this.blocks.lines(value, this.indentsLists());
    return lines
      .map((line) => `${line === '' ? '' : ' '.repeat(column)}${line}${this.eol}`)
      .join('');
  }

  /** Whether a list stands deeper than its key; as the first list of the document has it. */
  private indentsLists(): boolean {
    const { yaml } = this.at.stream;
    let found: boolean | undefined;
    yaml.visit(this.at.document, {
      Pair: (_, pair) => {
        if (!yaml.isSeq(pair.value) || pair.value.flow) return undefined;
        found = this.at.indentOf(pair.value) > this.at.columnOf(pair.key, []);
        return yaml.visit.BREAK;
      },
    });
    return found ?? true;
  }

  private insertAt(at: number, lines: string): TextEdit {
    const { text } = this.at.stream;
    return {
      start: at,
      end: at,
      by: at > 0 && text[at - 1] !== '\n' ? `${this.eol}${lines}` : lines,
    };
  }

  /** After an item, so before its comma and comment, where it has any. */
  private insertInFlow(item: unknown, by: string): TextEdit {
    const at = this.at.valueEnd(item);
    return { start: at, end: at, by: `, ${by}` };
  }

  /** Whether one of the items before an index stays: then a new one or a gap there follows it, else it leads. */
  private keepsBefore(items: readonly unknown[], parent: Path, index: number): boolean {
    const { yaml } = this.at.stream;
    const nameOf = (item: unknown, at: number) =>
      yaml.isPair(item) && yaml.isScalar(item.key) ? String(item.key.value) : at;
    return items
      .slice(0, index)
      .some((item, at) => !this.removed.has(JSON.stringify([...parent, nameOf(item, at)])));
  }
}
