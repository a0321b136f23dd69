import type { AgentError } from '../base/errors';
import type { YamlDocument, YamlPair, YamlStream } from '../base/yaml';
import type { Path } from './changes';
import { fieldName } from './findings';
import { offsetOf } from './yaml-value';

/** Replaces `text` from `start` to `end` by `by`. */
export interface TextEdit {
  readonly start: number;
  readonly end: number;
  readonly by: string;
}

/** Where the nodes of a document stand in its text. Methods refuse what has no place of its own; `full` is the field that errors name. */
export class YamlPlaces {
  constructor(
    readonly document: YamlDocument,
    readonly stream: YamlStream,
    /** How errors call what is looked at, e.g. `document 2, Deployment shop/cart`. */
    readonly title: string,
  ) {}

  /** The node at a path; an alias on the way stands for something elsewhere. */
  node(path: Path, full: Path) {
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

  /** The key and value at a path. */
  pair(path: Path, full: Path): YamlPair {
    const { yaml } = this.stream;
    const map = this.node(path.slice(0, -1), full);
    const pair = yaml.isMap(map)
      ? map.items.find((item) => this.isNamed(item, path.at(-1)!))
      : undefined;
    if (!pair) throw this.refuse(full);
    return pair;
  }

  /** Whether something is the pair of that key. */
  isNamed(item: unknown, name: string | number): boolean {
    const { yaml } = this.stream;
    return yaml.isPair(item) && yaml.isScalar(item.key) && String(item.key.value) === name;
  }

  /** Whether the value at a path stands after a key of a block, and not within `{}` or `[]`. */
  isInBlock(path: Path): boolean {
    const { yaml } = this.stream;
    const holder = this.node(path.slice(0, -1), path);
    return typeof path.at(-1) === 'string' && yaml.isCollection(holder) && !holder.flow;
  }

  /** Past the line on which the last word of a node stands. */
  endOf(node: unknown): number {
    const { text, yaml } = this.stream;
    if (yaml.isCollection(node) && !node.flow) return this.endOf(node.items.at(-1));
    if (yaml.isPair(node) && yaml.isCollection(node.value) && !node.value.flow)
      return this.endOf(node.value);
    const end = this.valueEnd(node);
    return end > 0 && text[end - 1] === '\n' ? end : this.lineEnd(end);
  }

  /** Past the last word of a node, with nothing that follows it on its line. */
  valueEnd(node: unknown): number {
    const { yaml } = this.stream;
    if (yaml.isPair(node)) return Math.max(this.valueEnd(node.key), this.valueEnd(node.value));
    return yaml.isNode(node) ? (node.range?.[1] ?? 0) : 0;
  }

  /** The first word of a node; of a pair, of its key. */
  startOf(node: unknown, path: Path): number {
    const { yaml } = this.stream;
    const start = yaml.isPair(node)
      ? this.startOf(node.key, path)
      : yaml.isNode(node)
        ? node.range?.[0]
        : undefined;
    if (start === undefined) throw this.refuse(path);
    return start;
  }

  /** The `-` of an item of a block. */
  dashOf(list: { srcToken?: unknown }, index: number, path: Path): number {
    const { items } = (list.srcToken ?? {}) as {
      items?: { start: { type: string; offset: number }[] }[];
    };
    const dashes =
      items?.flatMap(({ start }) => start.filter(({ type }) => type === 'seq-item-ind')) ?? [];
    const found = dashes[index]?.offset;
    if (found === undefined) throw this.refuse(path);
    return found;
  }

  /** Columns before the keys or dashes of a block. */
  indentOf(node: { srcToken?: unknown }): number {
    return (node.srcToken as { indent?: number } | undefined)?.indent ?? 0;
  }

  /** Columns before a key. */
  columnOf(key: unknown, path: Path): number {
    const start = this.startOf(key, path);
    return start - this.lineStart(start);
  }

  /** Of the line of an offset. */
  lineStart(offset: number): number {
    return this.stream.text.lastIndexOf('\n', offset - 1) + 1;
  }

  /** After the line's end, which may be the text's. */
  lineEnd(offset: number): number {
    const found = this.stream.text.indexOf('\n', offset);
    return found < 0 ? this.stream.text.length : found + 1;
  }

  /** An error that names line and field. What is missing is on the line of what should have it, what an alias stands for on that of the alias. */
  refusal(path: Path, rule: string, hint?: string): AgentError {
    const within = [this.title, fieldName(path)].filter((each) => each !== '').join(', ');
    return this.stream.refuse(this.offset(path), rule, { within, hint });
  }

  /** Of a field that cannot be changed. */
  refuse(path: Path): AgentError {
    return this.refusal(
      path,
      'comes by an alias or a merge, or is written in a way that cannot be added to',
      HINT,
    );
  }

  private offset(path: Path): number | undefined {
    const { yaml } = this.stream;
    let node: unknown = this.document.contents;
    let offset = offsetOf(node);
    for (const part of path) {
      const pair = yaml.isMap(node)
        ? node.items.find((item) => this.isNamed(item, part))
        : undefined;
      const item = yaml.isSeq(node) && typeof part === 'number' ? node.items[part] : undefined;
      node = pair?.value ?? item;
      offset = offsetOf(pair?.key ?? item) ?? offset;
    }
    return offset;
  }
}

const HINT = 'write it out where it is used';
