import { AgentError } from '../../base/errors';

/** RE2's `.` excludes the line feed only, and its `\s` is ASCII. JavaScript reads both more widely. */
const ANY = '[^\\n]';
const SPACE = '\\t\\n\\f\\r ';
const MAX_REPEAT = 1_000;
const CLASSES: Readonly<Record<string, string>> = {
  d: '0-9',
  w: '0-9A-Za-z_',
  s: SPACE,
};
const CONTROLS: Readonly<Record<string, string>> = {
  t: '\\t',
  n: '\\n',
  r: '\\r',
  f: '\\f',
  v: '\\v',
  a: '\\x07',
};

const known = new Map<string, RegExp>();
const MAX_KNOWN = 10_000;

/**
 * Whether RE2 would match a whole value. Expressions are translated, so that what JavaScript reads differently (`.`,
 * `\s`, `(?P<name>`, literal braces) means what it means to RE2.
 *
 * @throws AgentError ERR_POLICY where an expression has what is not translated, or is none.
 * @see https://github.com/google/re2/wiki/Syntax
 */
export function matchesRe2(regex: string, value: string): boolean {
  let compiled = known.get(regex);
  if (!compiled) {
    compiled = compileRe2(regex);
    if (known.size >= MAX_KNOWN) known.clear();
    known.set(regex, compiled);
  }
  return compiled.test(value);
}

function compileRe2(regex: string): RegExp {
  const ignoresCase = regex.startsWith('(?i)');
  const source = new Translator(ignoresCase ? regex.slice(4) : regex).translate();
  try {
    return new RegExp(`^(?:${source})$`, ignoresCase ? 'iu' : 'u');
  } catch (cause) {
    throw refusal(regex, 'is no expression', cause);
  }
}

function refusal(regex: string, why: string, cause?: unknown): AgentError {
  return new AgentError('ERR_POLICY', `regex ${JSON.stringify(regex)}: ${why}`, {
    cause,
    hint: 'Envoy reads expressions with RE2: ask a real one, or write the expression without it',
  });
}

class Translator {
  private at = 0;

  constructor(private readonly regex: string) {}

  translate(): string {
    let out = '';
    while (this.at < this.regex.length) out += this.next();
    return out;
  }

  private next(): string {
    const char = this.take();
    switch (char) {
      case '.':
        return ANY;
      case '\\':
        return this.escape(false);
      case '[':
        return this.charClass();
      case '(':
        return this.group();
      case '{':
        return this.repeat();
      case '}':
      case ']':
      case '/':
        return `\\${char}`;
      default:
        return char;
    }
  }

  /** One code point. */
  private take(): string {
    const char = String.fromCodePoint(this.regex.codePointAt(this.at)!);
    this.at += char.length;
    return char;
  }

  private group(): string {
    const rest = this.regex.slice(this.at);
    if (!rest.startsWith('?')) return '(';
    const named = /^\?P?<([A-Za-z_]\w*)>/.exec(rest);
    if (!named && !rest.startsWith('?:')) throw refusal(this.regex, 'has a group of a kind');
    this.at += named ? named[0].length : 2;
    return named ? `(?<${named[1]}>` : '(?:';
  }

  /** A count, or a brace that means itself. */
  private repeat(): string {
    const [count, least, , most] =
      /^(\d+)(,(\d*))?\}/.exec(this.regex.slice(this.at)) ?? ([] as string[]);
    if (count === undefined) return '\\{';
    if (Math.max(Number(least), Number(most ?? 0)) > MAX_REPEAT)
      throw refusal(this.regex, `repeats more than ${MAX_REPEAT} times`);
    this.at += count.length;
    return `{${count}`;
  }

  private escape(inClass: boolean): string {
    if (this.at >= this.regex.length) throw refusal(this.regex, 'ends with a backslash');
    const char = this.take();
    const set = CLASSES[char];
    if (set !== undefined) return inClass ? set : `[${set}]`;
    const negated = CLASSES[char.toLowerCase()];
    if (negated !== undefined && !inClass) return `[^${negated}]`;
    const control = CONTROLS[char];
    if (control !== undefined) return control;
    if (!inClass && char === 'z') return '$';
    if (!inClass && char === 'A') return '^';
    if (!inClass && (char === 'b' || char === 'B')) return `\\${char}`;
    // What stands for itself.
    if (/[!-/:-@[-`{-~]/.test(char))
      return `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`;
    throw refusal(this.regex, `has \\${char}, which is not translated`);
  }

  private charClass(): string {
    let out = '[';
    if (this.regex[this.at] === '^') out += this.take();
    // A bracket that comes first means itself.
    if (this.regex[this.at] === ']') out += `\\${this.take()}`;
    for (;;) {
      if (this.at >= this.regex.length) throw refusal(this.regex, 'has an open bracket');
      const char = this.take();
      if (char === ']') return `${out}]`;
      if (char === '\\') out += this.escape(true);
      else if (char === '[') {
        if (this.regex[this.at] === ':') throw refusal(this.regex, 'has a class of POSIX');
        out += '\\[';
      } else out += char;
    }
  }
}
