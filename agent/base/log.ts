import { AgentError } from './errors';
import { iso } from './iso';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export const LOG_FORMATS = ['text', 'json'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** The varying part of an event: camelCase names, JSON-able values; `cause` may be an error, whose chain of messages is written. */
export type Facts = Readonly<Record<string, unknown>>;

/**
 * Events with facts. The sentence is constant, so that it can be searched. `info` is a change that an operator would want to know about,
 * `warn` something that they may have to act on, `error` a duty that we are failing now.
 */
export interface Logger {
  debug(event: string, facts?: Facts): void;
  info(event: string, facts?: Facts): void;
  warn(event: string, facts?: Facts): void;
  error(event: string, facts?: Facts): void;
  /** The same log under a scope name, e.g. `sds`. */
  scope(name: string): Logger;
  /** The same log with facts about whom each line is, asked for when it is written. */
  about(subject: () => Facts): Logger;
}

export interface LogOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** Takes one finished line without its newline. */
  readonly write: (line: string) => void;
  readonly now: () => number;
}

export function createLogger(
  options: LogOptions,
  scope = 'agent',
  subject: () => Facts = () => ({}),
): Logger {
  const lowest = LOG_LEVELS.indexOf(options.level);
  const at =
    (level: LogLevel) =>
    (event: string, facts: Facts = {}) => {
      if (LOG_LEVELS.indexOf(level) < lowest) return;
      const time = iso(options.now());
      const plain = flatten({ ...subject(), ...facts });
      const line =
        options.format === 'json'
          ? JSON.stringify({ time, level, scope, event, ...plain })
          : `${time} ${level.padEnd(5)} ${scope}: ${event}${Object.entries(plain)
              .map(([name, value]) => ` ${name}=${textValue(value)}`)
              .join('')}`;
      options.write(visible(line));
    };
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    scope: (name) => createLogger(options, name, subject),
    about: (other) => createLogger(options, scope, other),
  };
}

/** For commands and tests that log nothing. */
export const noLog: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  scope: () => noLog,
  about: () => noLog,
};

/** Characters of foreign text that reorder or hide what stands around them, as JSON escapes them: a line says what it shows. */
function visible(line: string): string {
  return line.replace(
    /[\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
    (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** Facts as plain JSON values: errors become their chain of messages plus code and hint, undefined is left out. */
function flatten(facts: Facts): Record<string, unknown> {
  const plain: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(facts)) {
    if (value === undefined) continue;
    if (value instanceof Error) {
      plain[name] = causeText(value);
      if (value instanceof AgentError) {
        plain.code ??= value.code;
        if (value.hint !== undefined) plain.hint ??= value.hint;
      }
    } else {
      plain[name] = value;
    }
  }
  return plain;
}

/** `outer: inner: innermost`, without repeating a message that its wrapper already contains, bounded in depth. */
export function causeText(error: Error): string {
  const parts: string[] = [];
  let current: unknown = error;
  for (let depth = 0; current instanceof Error && depth < 8; depth += 1) {
    if (!parts.some((part) => part.includes((current as Error).message)))
      parts.push(current.message);
    current = current.cause;
  }
  return parts.join(': ');
}

// A line stays a line: control characters of foreign text are escaped by JSON.stringify.
function textValue(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return /^[\w./:@+,~%-]+$/.test(text) ? text : JSON.stringify(text);
}
