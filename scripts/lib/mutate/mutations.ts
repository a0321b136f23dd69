import { parseSync } from '@swc/core';

/** One break of a source: `to` in place of the bytes (of UTF-8) from `start` to `end`. */
export interface Mutation {
  readonly start: number;
  readonly end: number;
  readonly to: string;
  /** Names it for a reader and for test/survivors.txt: it stays the same when lines move. */
  readonly name: string;
  /** From 1 on. */
  readonly line: number;
}

interface Node {
  readonly type: string;
  readonly span: { readonly start: number; readonly end: number };
  readonly [field: string]: unknown;
}

const OPERATORS: Readonly<Record<string, string>> = {
  '===': '!==',
  '!==': '===',
  '<': '<=',
  '<=': '<',
  '>': '>=',
  '>=': '>',
  '+': '-',
  '-': '+',
  '*': '/',
  '/': '*',
  '&&': '||',
  '||': '&&',
  '??': '&&',
  '&': '|',
  '|': '&',
  '<<': '>>',
  '>>': '<<',
  '>>>': '<<',
};

/** Positions of swc begin at the first token: with this before the text, where the text does. */
const BEFORE = '0;';

/** What is shorter stands in many places of a file, so its line is named too. */
const SHORT = 12;

/**
 * Every mutation of a TypeScript source, in the order of its text: operators exchanged, conditions
 * held true or false, `!` and `await` dropped, booleans turned, numbers one more, statements left
 * out.
 */
export function mutationsOf(text: string): Mutation[] {
  const module = parseSync(BEFORE + text, { syntax: 'typescript', target: 'es2023' });
  const [bytes, lines] = [Buffer.from(text), text.split('\n')];
  const offset = module.span.start + BEFORE.length;
  const found: Mutation[] = [];
  const source = ({ span }: Node) => bytes.toString('utf8', span.start - offset, span.end - offset);
  const add = ({ span }: Node, to: string) => {
    const [start, end] = [span.start - offset, span.end - offset];
    const line = bytes.toString('utf8', 0, start).split('\n').length;
    const was = oneLine(bytes.toString('utf8', start, end));
    const where = was.length < SHORT ? ` in ${oneLine(lines[line - 1]!)}` : '';
    found.push({ start, end, to, line, name: `${was} => ${oneLine(to)}${where}` });
  };
  const visit = (node: Node) => {
    for (const to of replacements(node, source)) add(node, to);
    for (const child of childrenOf(node)) visit(child);
  };
  for (const item of module.body.slice(1)) visit(item as unknown as Node);
  return found.sort((a, b) => a.start - b.start || b.end - a.end);
}

/** The text with the mutation in it. */
export function mutate(text: string, { start, end, to }: Mutation): string {
  const bytes = Buffer.from(text);
  return Buffer.concat([bytes.subarray(0, start), Buffer.from(to), bytes.subarray(end)]).toString();
}

function replacements(node: Node, source: (node: Node) => string): string[] {
  switch (node.type) {
    case 'BinaryExpression': {
      const to = OPERATORS[String(node.operator)];
      const [left, right] = [source(node.left as Node), source(node.right as Node)];
      // Mixed with the others, `??` wants its operands in brackets.
      return to === undefined ? [] : [`((${left}) ${to} (${right}))`];
    }
    case 'UnaryExpression':
      return node.operator === '!' ? [`(${source(node.argument as Node)})`] : [];
    case 'AwaitExpression':
      return [`(${source(node.argument as Node)})`];
    case 'BooleanLiteral':
      return [String(!node.value)];
    case 'NumericLiteral':
      return [`${Number(node.value) + 1}`];
    case 'ConditionalExpression': {
      const [yes, no] = [source(node.consequent as Node), source(node.alternate as Node)];
      return [`(${yes})`, `(${no})`];
    }
    case 'ExpressionStatement':
    case 'ThrowStatement':
    case 'ContinueStatement':
    case 'BreakStatement':
      return [';'];
    case 'IfStatement': {
      const [yes, no] = [node.consequent as Node, node.alternate as Node | null];
      return [`{ ${source(yes)} }`, no ? `{ ${source(no)} }` : ';'];
    }
    default:
      return [];
  }
}

const TYPES_ALONE = /^Ts(?!AsExpression|NonNull|SatisfiesExpression)/;

function childrenOf(node: Node): Node[] {
  return Object.values(node)
    .flatMap((value) => (Array.isArray(value) ? value : [value]))
    .flatMap((value) => (isNode(value) ? [value] : nested(value)))
    .filter((child) => !TYPES_ALONE.test(child.type) && child.type !== 'ImportDeclaration');
}

/** Arguments and parts of a pattern lie in a record of their own that has no type. */
function nested(value: unknown): Node[] {
  if (value === null || typeof value !== 'object') return [];
  return Object.values(value).filter(isNode);
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && 'type' in value && 'span' in value;
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim();
}
