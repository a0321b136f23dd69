import { suggestion } from '../../base/suggestion';
import { MAX_PROBLEMS } from './problem';
import type { FieldPath, Json, JsonObject } from './resource';
import type { Fields, Shape } from './shapes';

/** What is wrong at a field. */
export type Refuse = (path: FieldPath, rule: string, hint?: string) => void;

/** Values of one document, aliases counted as often as they are used; more is a bomb. */
export const MAX_VALUES = 100_000;

/**
 * Takes a value of its shape, and refuses by its path what is unknown or of another type. What is
 * refused is left out, so that everything wrong in a document is found at once.
 */
export class Taker {
  #left = MAX_VALUES;
  #said = 0;

  /** @param unknown  Is called for fields that no table has; without it they are refused. */
  constructor(
    private readonly onRefused: Refuse,
    private readonly onUnknown = onRefused,
  ) {}

  private refuse(path: FieldPath, rule: string, hint?: string): void {
    this.#say(this.onRefused, path, rule, hint);
  }

  #say(to: Refuse, path: FieldPath, rule: string, hint?: string): void {
    if (this.#said >= MAX_PROBLEMS) return;
    this.#said += 1;
    to(path, rule, hint);
    if (this.#said < MAX_PROBLEMS) return;
    // A document that is wrong throughout is no document of this kind; each line costs a search.
    this.onRefused([], `is not read further: it has ${MAX_PROBLEMS} problems`);
    this.#left = 0;
  }

  take(value: unknown, shape: Shape, path: FieldPath): Json | undefined {
    this.#left -= 1;
    if (this.#left === 0 && this.#said < MAX_PROBLEMS)
      this.refuse(path, `is one of more than ${MAX_VALUES} values in this document`);
    if (this.#left <= 0) return undefined;
    // As in Kubernetes, a field without a value is absent.
    if (value === null && shape.type !== 'anything') return undefined;
    switch (shape.type) {
      case 'text':
        return this.#scalar(value, path, 'string', 'a text', quoteHint(value));
      case 'boolean':
        return this.#scalar(value, path, 'boolean', 'true or false');
      case 'integer':
        return this.#integer(value, path);
      case 'duration':
        return this.#duration(value, path);
      case 'choice':
        return this.#choice(value, shape.values, path);
      case 'list':
        return this.#list(value, shape.of, path);
      case 'map':
        return this.#map(value, shape.of, path);
      case 'message':
        return this.#message(value, shape.fields, path);
      case 'anything':
        return this.#anything(value, path);
    }
  }

  #scalar<T extends 'string' | 'boolean'>(
    value: unknown,
    path: FieldPath,
    type: T,
    what: string,
    hint?: string,
  ): Json | undefined {
    if (typeof value === type) return value as Json;
    this.refuse(path, `must be ${what}, not ${typeName(value)}`, hint);
    return undefined;
  }

  #integer(value: unknown, path: FieldPath): Json | undefined {
    // Proto3 JSON takes a number in quotes.
    const number = typeof value === 'string' && /^-?\d+$/.test(value) ? Number(value) : value;
    if (typeof number === 'number' && Number.isSafeInteger(number)) return number;
    this.refuse(path, `must be a whole number, not ${typeName(value)}`);
    return undefined;
  }

  #duration(value: unknown, path: FieldPath): Json | undefined {
    const duration = typeof value === 'string' ? secondsOf(value) : undefined;
    if (duration !== undefined) return duration;
    this.refuse(path, 'must be a duration such as 5s or 1m30s');
    return undefined;
  }

  #choice(value: unknown, values: readonly string[], path: FieldPath): Json | undefined {
    if (typeof value === 'string' && values.includes(value)) return value;
    const near = typeof value === 'string' ? suggestion(value.toUpperCase(), values) : undefined;
    this.refuse(
      path,
      `must be one of ${values.join(', ')}, not ${shown(value)}`,
      near === undefined ? undefined : `write ${near}`,
    );
    return undefined;
  }

  #list(value: unknown, of: Shape, path: FieldPath): Json | undefined {
    if (!Array.isArray(value)) {
      this.refuse(path, `must be a list, not ${typeName(value)}`);
      return undefined;
    }
    return value.map((each, index) => {
      const at = [...path, index];
      if (each === null) this.refuse(at, 'must not be empty');
      return this.take(each, of, at) ?? null;
    });
  }

  #map(value: unknown, of: Shape, path: FieldPath): Json | undefined {
    const entries = this.#entries(value, path);
    return (
      entries &&
      this.#members(
        entries.map(([key, each]) => [key, each, of]),
        path,
      )
    );
  }

  #message(value: unknown, fields: Fields, path: FieldPath): Json | undefined {
    const members: [string, unknown, Shape][] = [];
    for (const [key, each] of this.#entries(value, path) ?? []) {
      const shape = fields.get(key);
      if (shape) members.push([key, each, shape]);
      else this.#unknown(key, fields, path);
    }
    return this.#members(members, path);
  }

  #unknown(key: string, fields: Fields, path: FieldPath): void {
    if (this.#said >= MAX_PROBLEMS) return;
    const near = suggestion(camelCase(key), fields.keys());
    this.#say(
      this.onUnknown,
      [...path, key],
      'is no field of this kind',
      near === undefined ? `known here: ${[...fields.keys()].join(', ')}` : `did you mean ${near}?`,
    );
  }

  #members(members: readonly [string, unknown, Shape][], path: FieldPath): JsonObject {
    const taken = members.flatMap(([key, each, shape]) => {
      const value = this.take(each, shape, [...path, key]);
      return value === undefined ? [] : [[key, value] as const];
    });
    return Object.fromEntries(taken);
  }

  #entries(value: unknown, path: FieldPath): [string, unknown][] | undefined {
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return Object.entries(value);
    this.refuse(path, `must be a mapping, not ${typeName(value)}`);
    return undefined;
  }

  #anything(value: unknown, path: FieldPath): Json | undefined {
    if (path.length > MAX_DEPTH) {
      this.refuse(path, `is more than ${MAX_DEPTH} levels deep`);
      return undefined;
    }
    if (Array.isArray(value))
      return value.map((each, index) => this.take(each, ANYTHING, [...path, index]) ?? null);
    if (typeof value !== 'object' || value === null) return value as Json;
    return this.#members(
      Object.entries(value).map(([key, each]) => [key, each, ANYTHING]),
      path,
    );
  }
}

const ANYTHING: Shape = { type: 'anything' };
const MAX_DEPTH = 100;

function typeName(value: unknown): string {
  if (value === null) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a mapping';
  return typeof value === 'string' ? 'a text' : `${String(value)}, ${numberOrBoolean(value)}`;
}

const numberOrBoolean = (value: unknown) => (typeof value === 'boolean' ? 'a boolean' : 'a number');

function quoteHint(value: unknown): string | undefined {
  return typeof value === 'number' || typeof value === 'boolean'
    ? `put it in quotes: "${value}"`
    : undefined;
}

function shown(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, 60) : typeName(value);
}

function camelCase(key: string): string {
  return key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** A duration of Go or of proto3 JSON as the latter has it: `90s`. */
function secondsOf(text: string): string | undefined {
  if (!/^(\d+(\.\d+)?(h|m|s|ms|us|µs|ns))+$/.test(text)) return undefined;
  const parts = [...text.matchAll(/(\d+)(?:\.(\d+))?(h|ms|m|s|us|µs|ns)/g)];
  const nanos = parts.reduce(
    (sum, [, whole, fraction = '', unit]) => sum + nanosOf(whole!, fraction, unit!),
    0n,
  );
  const behind = String(nanos % SECOND)
    .padStart(9, '0')
    .replace(/0+$/, '');
  return `${nanos / SECOND}${behind === '' ? '' : `.${behind}`}s`;
}

const SECOND = 1_000_000_000n;
const UNITS: Readonly<Record<string, bigint>> = {
  h: 3_600n * SECOND,
  m: 60n * SECOND,
  s: SECOND,
  ms: 1_000_000n,
  us: 1_000n,
  µs: 1_000n,
  ns: 1n,
};

function nanosOf(whole: string, fraction: string, unit: string): bigint {
  const scaled = BigInt(whole + fraction) * UNITS[unit]!;
  return scaled / 10n ** BigInt(fraction.length);
}
