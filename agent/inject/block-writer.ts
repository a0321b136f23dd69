import type { YamlPackage } from '../base/yaml';

/** Writes values as blocks of YAML. What is put into one pod is put into most, so a text that was written before is not written again. */
export class BlockWriter {
  readonly #written = new Map<string, readonly string[]>();

  constructor(private readonly yaml: YamlPackage) {}

  /**
   * Lines without their ends.
   *
   * @param indentsLists  Whether a list stands deeper than its key.
   */
  lines(value: unknown, indentsLists: boolean): readonly string[] {
    const key = `${indentsLists} ${JSON.stringify(value)}`;
    const known = this.#written.get(key);
    if (known) return known;
    const text = this.yaml.stringify(value, {
      lineWidth: 0,
      indentSeq: indentsLists,
      compat: 'yaml-1.1',
      aliasDuplicateObjects: false,
    });
    const lines = text.split('\n').slice(0, -1);
    if (this.#written.size < MAX_KNOWN) this.#written.set(key, lines);
    return lines;
  }
}

const MAX_KNOWN = 1_000;
