import { isAbsolute, resolve } from 'node:path';
import { type AgentError, invalid } from '../base/errors';
import { readSmallFile } from '../base/read-file';

/** A mapping of a kubeconfig, with the name that errors call it by. */
export class KubeConfigSection {
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(
    values: unknown,
    readonly name: string,
    /** Relative paths are relative to the kubeconfig. */
    readonly dir: string,
  ) {
    if (typeof values !== 'object' || values === null || Array.isArray(values))
      throw invalid('ERR_CONFIG', name, 'must be a mapping');
    this.#values = values as Record<string, unknown>;
  }

  refuse(key: string, rule: string): AgentError {
    return invalid('ERR_CONFIG', `${this.name}: ${key}`, rule);
  }

  value(key: string): unknown {
    return this.#values[key];
  }

  /** A string that is not empty, or undefined. */
  text(key: string): string | undefined {
    const value = this.#values[key];
    if (value === undefined || value === null || value === '') return undefined;
    if (typeof value !== 'string') throw this.refuse(key, 'must be a string');
    return value;
  }

  need(key: string): string {
    const text = this.text(key);
    if (text === undefined) throw this.refuse(key, 'must not be empty');
    return text;
  }

  list(key: string): readonly unknown[] {
    const value = this.#values[key] ?? [];
    if (!Array.isArray(value)) throw this.refuse(key, 'must be a list');
    return value;
  }

  section(key: string): KubeConfigSection {
    return new KubeConfigSection(this.#values[key] ?? {}, `${this.name}: ${key}`, this.dir);
  }

  /** The entry of a list whose `name` is this. */
  named(key: string, name: string): KubeConfigSection {
    const found = this.list(key).find((each) => (each as { name?: unknown } | null)?.name === name);
    if (found === undefined) throw this.refuse(key, `must hold ${JSON.stringify(name)}`);
    return new KubeConfigSection(found, `${this.name}: ${key} ${JSON.stringify(name)}`, this.dir);
  }

  path(key: string): string | undefined {
    const text = this.text(key);
    return text === undefined || isAbsolute(text) ? text : resolve(this.dir, text);
  }

  /** How to get at `KEY-data` (base64) or else the file that `KEY` names, anew each time. */
  bytes(key: string): (() => Promise<Buffer>) | undefined {
    const data = this.text(`${key}-data`);
    if (data !== undefined) {
      if (!/^[A-Za-z0-9+/\s]+={0,2}\s*$/.test(data))
        throw this.refuse(`${key}-data`, 'must be base64');
      return async () => Buffer.from(data, 'base64');
    }
    const path = this.path(key);
    return path === undefined
      ? undefined
      : () => readSmallFile(path, { field: `${this.name}: ${key}`, code: 'ERR_TOKEN' });
  }
}
