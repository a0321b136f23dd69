import type { YamlDocument, YamlPair, YamlStream } from '../base/yaml';
import type { Change, Path } from './changes';
import { fieldName } from './findings';

/** Replaces `text` from `start` to `end` by `by`. */
export interface TextEdit {
  readonly start: number;
  readonly end: number;
  readonly by: string;
}

/**
 * The changes of one document as edits of its text, so that everything else in it stays to the octet: comments, order, anchors, quotes,
 * indentation. What is added is written in the style around it: blocks at the same indentation, or JSON within `{}` and `[]`.
 *
 * @param changes  Of the document's value, all paths those before the changes.
 * @throws         AgentError of `stream.refuse` where a change is in what an alias or a merge stands for: it would be one elsewhere too.
 */
export function yamlEdits(document: YamlDocument, changes: readonly Change[], stream: YamlStream): TextEdit[] {
  const removed = new Set(changes.filter(({ kind }) => kind === 'remove').map(({ path }) => fieldName(path)));
  const editor = new Editor(document, stream, removed);
  return changes.flatMap((change) => editor.edits(change));
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
    private readonly document: YamlDocument,
    private readonly stream: YamlStream,
    /** Fields that go. */
    private readonly removed: ReadonlySet<string>,
  ) {
    this.eol = /^[^\n]*\r\n/.test(stream.text) ? '\r\n' : '\n';
  }

  edits({ kind, path, ...rest }: Change): TextEdit[] {
    const value = 'value' in rest ? rest.value : undefined;
    const parent = path.slice(0, -1);
    const last = path.at(-1)!;
    if (kind === 'set') return this.set(path, value);
    if (kind === 'remove') return this.remove(parent, last, path);
    return typeof last === 'number' ? this.addItem(parent, last, value, path) : this.addMember(parent, last, value, path);
  }

  private addMember(parent: Path, key: string, value: unknown, path: Path): TextEdit[] {
    const { yaml } = this.stream;
    const map = this.node(parent, path);
    if (!yaml.isMap(map)) throw this.refuse(path);
    if (!map.flow) return [this.insertAt(this.endOf(map), this.block({ [key]: value }, this.indentOf(map)))];
    return [this.insertInFlow(map.items.at(-1), `${JSON.stringify(key)}: ${JSON.stringify(value)}`)];
  }

  private addItem(parent: Path, index: number, value: unknown, path: Path): TextEdit[] {
    const { yaml } = this.stream;
    const list = this.node(parent, path);
    if (!yaml.isSeq(list)) throw this.refuse(path);
    if (list.flow) {
      if (this.keepsBefore(list.items, parent, index)) return [this.insertInFlow(list.items[index - 1], JSON.stringify(value))];
      const start = this.startOf(list.items[index], path);
      return [{ start, end: start, by: `${JSON.stringify(value)}, ` }];
    }
    // Before the comments of the first item, which belong to it.
    const at = index === 0 ? this.lineAfter(this.pair(parent, path).key, path) : this.endOf(list.items[index - 1]);
    return [this.insertAt(at, this.block([value], this.indentOf(list)))];
  }

  private set(path: Path, value: unknown): TextEdit[] {
    const { yaml } = this.stream;
    if (typeof value === 'object' && value !== null) return this.fill(path, value, path);
    const node = this.node(path, path);
    if (!yaml.isScalar(node) || !node.range) throw this.refuse(path);
    const [start, end] = node.range;
    if (!this.isInBlock(path)) return [{ start, end, by: JSON.stringify(value) }];
    const { key } = this.pair(path, path);
    const [first, ...rest] = this.block({ x: value }, this.columnOf(key, path)).split(/(?<=\n)/);
    // A block scalar ends with its line; what follows another one on its line is a comment, or nothing.
    const isBlock = node.type === 'BLOCK_LITERAL' || node.type === 'BLOCK_FOLDED';
    const by = `${first!.trimStart().slice('x: '.length)}${rest.join('')}`;
    if (rest.length === 0) return [{ start, end, by: isBlock ? by : by.trimEnd() }];
    return [{ start, end: isBlock ? end : this.lineEnd(end), by }];
  }

  /** Gives a key whose value is empty (nothing, null, `{}` or `[]`) a value of its own lines. */
  private fill(path: Path, value: unknown, full: Path): TextEdit[] {
    const { yaml } = this.stream;
    const node = this.node(path, full);
    const isEmpty = yaml.isScalar(node) ? node.value === null : yaml.isCollection(node) && node.items.length === 0;
    if (!isEmpty || !node?.range || node.anchor !== undefined || node.tag !== undefined) throw this.refuse(full);
    const [start, end] = node.range;
    if (!this.isInBlock(path)) return [{ start, end, by: JSON.stringify(value) }];
    const { key } = this.pair(path, full);
    const column = this.columnOf(key, full);
    const [, ...lines] = this.block({ x: value }, column).split(/(?<=\n)/);
    const at = this.lineEnd(Math.max(end, start));
    return [...(end > start ? [{ start, end, by: '' }] : []), this.insertAt(at, lines.join(''))];
  }

  private remove(parent: Path, last: string | number, path: Path): TextEdit[] {
    const { yaml } = this.stream;
    const holder = this.node(parent, path);
    if (!yaml.isCollection(holder)) throw this.refuse(path);
    const index = typeof last === 'number' ? last : holder.items.findIndex((item) => this.isNamed(item, last));
    const item = holder.items[index];
    if (item === undefined) throw this.refuse(path);
    if (holder.flow) return [this.removeFromFlow(holder.items, index, path, this.keepsBefore(holder.items, parent, index))];
    const from = yaml.isPair(item) ? this.startOf(item.key, path) : this.dashOf(holder, index, path);
    const start = this.lineStart(from);
    if (this.stream.text.slice(start, from).trim() !== '') throw this.refuse(path);
    return [{ start, end: this.endOf(item), by: '' }];
  }

  /** With the comma before it where an item stays before it, else with the one after it. */
  private removeFromFlow(items: readonly unknown[], index: number, path: Path, follows: boolean): TextEdit {
    const [start, end] = [this.startOf(items[index], path), this.valueEnd(items[index])];
    if (follows) return { start: this.valueEnd(items[index - 1]), end, by: '' };
    return { start, end: index + 1 < items.length ? this.startOf(items[index + 1], path) : end, by: '' };
  }

  /** Lines of YAML at an indentation, each ended. Lists begin as deep as others of the same document. */
  private block(value: unknown, column: number): string {
    const { yaml } = this.stream;
    const text = yaml.stringify(value, { lineWidth: 0, indentSeq: this.indentsLists(), compat: 'yaml-1.1', aliasDuplicateObjects: false });
    const lines = text.split('\n').slice(0, -1);
    return lines.map((line) => `${line === '' ? '' : ' '.repeat(column)}${line}${this.eol}`).join('');
  }

  /** Whether a list stands deeper than its key; as the first list of the document has it. */
  private indentsLists(): boolean {
    const { yaml } = this.stream;
    let found: boolean | undefined;
    yaml.visit(this.document, {
      Pair: (_, pair) => {
        if (!yaml.isSeq(pair.value) || pair.value.flow) return undefined;
        found = this.indentOf(pair.value) > this.columnOf(pair.key, []);
        return yaml.visit.BREAK;
      },
    });
    return found ?? true;
  }

  private insertAt(at: number, lines: string): TextEdit {
    const { text } = this.stream;
    return { start: at, end: at, by: at > 0 && text[at - 1] !== '\n' ? `${this.eol}${lines}` : lines };
  }

  /** After an item, so before its comma and comment, where it has any. */
  private insertInFlow(item: unknown, by: string): TextEdit {
    const at = this.valueEnd(item);
    return { start: at, end: at, by: `, ${by}` };
  }

  /** Whether one of the items before an index stays: then a new one or a gap there follows it, else it leads. */
  private keepsBefore(items: readonly unknown[], parent: Path, index: number): boolean {
    const { yaml } = this.stream;
    const nameOf = (item: unknown, at: number) => (yaml.isPair(item) && yaml.isScalar(item.key) ? String(item.key.value) : at);
    return items.slice(0, index).some((item, at) => !this.removed.has(fieldName([...parent, nameOf(item, at)])));
  }

  /** The node at a path; an alias on the way stands for something elsewhere. */
  private node(path: Path, full: Path) {
    const { yaml } = this.stream;
    let node: unknown = this.document.contents;
    for (const part of path) {
      if (yaml.isSeq(node) && typeof part === 'number') node = node.items[part];
      else if (yaml.isMap(node)) node = node.items.find((item) => this.isNamed(item, part))?.value;
      else node = undefined;
      if (!yaml.isNode(node) || yaml.isAlias(node)) throw this.refuse(full);
    }
    return node as Exclude<YamlDocument['contents'], null>;
  }

  private pair(path: Path, full: Path): YamlPair {
    const { yaml } = this.stream;
    const map = this.node(path.slice(0, -1), full);
    const pair = yaml.isMap(map) ? map.items.find((item) => this.isNamed(item, path.at(-1)!)) : undefined;
    if (!pair) throw this.refuse(full);
    return pair;
  }

  private isNamed(item: unknown, name: string | number): boolean {
    const { yaml } = this.stream;
    return yaml.isPair(item) && yaml.isScalar(item.key) && String(item.key.value) === name;
  }

  /** Whether the value at a path stands after a key of a block, and not within `{}` or `[]`. */
  private isInBlock(path: Path): boolean {
    const { yaml } = this.stream;
    const holder = this.node(path.slice(0, -1), path);
    return typeof path.at(-1) === 'string' && yaml.isCollection(holder) && !holder.flow;
  }

  /** Past the line on which the last word of a node stands. */
  private endOf(node: unknown): number {
    const { text, yaml } = this.stream;
    if (yaml.isCollection(node) && !node.flow) return this.endOf(node.items.at(-1));
    if (yaml.isPair(node) && yaml.isCollection(node.value) && !node.value.flow) return this.endOf(node.value);
    const end = this.valueEnd(node);
    return end > 0 && text[end - 1] === '\n' ? end : this.lineEnd(end);
  }

  private valueEnd(node: unknown): number {
    const { yaml } = this.stream;
    if (yaml.isPair(node)) return Math.max(this.valueEnd(node.key), this.valueEnd(node.value));
    return yaml.isNode(node) ? (node.range?.[1] ?? 0) : 0;
  }

  private startOf(node: unknown, path: Path): number {
    const { yaml } = this.stream;
    const start = yaml.isPair(node) ? this.startOf(node.key, path) : yaml.isNode(node) ? node.range?.[0] : undefined;
    if (start === undefined) throw this.refuse(path);
    return start;
  }

  private dashOf(list: { srcToken?: unknown }, index: number, path: Path): number {
    const { items } = (list.srcToken ?? {}) as { items?: { start: { type: string; offset: number }[] }[] };
    const dashes = items?.flatMap(({ start }) => start.filter(({ type }) => type === 'seq-item-ind')) ?? [];
    const found = dashes[index]?.offset;
    if (found === undefined) throw this.refuse(path);
    return found;
  }

  private indentOf(node: { srcToken?: unknown }): number {
    return (node.srcToken as { indent?: number } | undefined)?.indent ?? 0;
  }

  private columnOf(key: unknown, path: Path): number {
    const start = this.startOf(key, path);
    return start - this.lineStart(start);
  }

  private lineStart(offset: number): number {
    return this.stream.text.lastIndexOf('\n', offset - 1) + 1;
  }

  /** After the line's end, which may be the text's. */
  private lineEnd(offset: number): number {
    const found = this.stream.text.indexOf('\n', offset);
    return found < 0 ? this.stream.text.length : found + 1;
  }

  private lineAfter(key: unknown, path: Path): number {
    return this.lineEnd(this.startOf(key, path));
  }

  private refuse(path: Path) {
    return this.stream.refuse(
      undefined,
      `${fieldName(path)}: comes by an alias or a merge, or is written in a way that cannot be added to`,
    );
  }
}
