import type { YamlDocument, YamlNode, YamlStream } from '../base/yaml';

/** Aliases and merges are followed, so a small text may say much. */
const MAX_VALUES = 2_000_000;

/**
 * The value of a document as Kubernetes would read it: aliases followed, `<<` merged, null for an empty one. Mappings have no prototype.
 *
 * @throws AgentError of `stream.refuse`: a key that is given twice or is no plain value, an unknown alias, or more than 2,000,000 values.
 */
export function yamlValue(document: YamlDocument, stream: YamlStream): unknown {
  return new ValueReader(stream).value(document.contents);
}

class ValueReader {
  private readonly anchors = new Map<string, unknown>();
  private values = 0;

  constructor(private readonly stream: YamlStream) {}

  value(node: unknown): unknown {
    const { yaml, refuse } = this.stream;
    this.values += 1;
    if (this.values > MAX_VALUES)
      throw refuse(
        undefined,
        `must not say more than ${MAX_VALUES} values, with its aliases followed`,
      );
    if (yaml.isAlias(node)) {
      if (!this.anchors.has(node.source))
        throw refuse(offsetOf(node), 'has an alias whose anchor is not complete before it');
      return this.copy(this.anchors.get(node.source));
    }
    const value = this.plain(node);
    if ((yaml.isScalar(node) || yaml.isCollection(node)) && node.anchor !== undefined)
      this.anchors.set(node.anchor, value);
    return value;
  }

  private plain(node: unknown): unknown {
    const { yaml } = this.stream;
    if (yaml.isSeq(node)) return node.items.map((item) => this.value(item));
    if (yaml.isMap(node)) return this.members(node.items);
    return yaml.isScalar(node) ? node.value : null;
  }

  private members(
    pairs: readonly { readonly key: unknown; readonly value: unknown }[],
  ): Record<string, unknown> {
    const { yaml, refuse } = this.stream;
    const own: Record<string, unknown> = Object.create(null);
    let merged: Record<string, unknown> | undefined;
    for (const { key, value } of pairs) {
      if (!yaml.isScalar(key))
        throw refuse(offsetOf(key), 'has a key that is no plain value', { hint: TEMPLATE_HINT });
      const name = String(key.value);
      if (Object.hasOwn(own, name))
        throw refuse(offsetOf(key), `${JSON.stringify(name.slice(0, 60))} is given twice`);
      if (name === '<<' && key.type === 'PLAIN') merged = this.merge(value);
      else own[name] = this.value(value);
    }
    return merged ? Object.assign(Object.create(null), merged, own) : own;
  }

  /** @see YAML, Merge Key Language-Independent Type: of several mappings the earlier wins. */
  private merge(node: unknown): Record<string, unknown> {
    const found = this.value(node);
    const sources = Array.isArray(found) ? found : [found];
    const isMapping = (each: unknown) =>
      typeof each === 'object' && each !== null && !Array.isArray(each);
    if (!sources.every(isMapping))
      throw this.stream.refuse(offsetOf(node), 'merges what is no mapping');
    return Object.assign(Object.create(null), ...sources.toReversed());
  }

  /** Counted: an alias of aliases doubles with every line. */
  private copy(value: unknown): unknown {
    this.values += 1;
    if (this.values > MAX_VALUES)
      throw this.stream.refuse(
        undefined,
        `must not say more than ${MAX_VALUES} values, with its aliases followed`,
      );
    if (Array.isArray(value)) return value.map((each) => this.copy(each));
    if (typeof value !== 'object' || value === null) return value;
    const copied: Record<string, unknown> = Object.create(null);
    for (const [name, each] of Object.entries(value)) copied[name] = this.copy(each);
    return copied;
  }
}

/** What to do about braces where none belong. */
export const TEMPLATE_HINT = 'a template ({{ }}) is rendered first, e.g. by helm template';

/** Where a node begins in the text. */
export function offsetOf(node: unknown): number | undefined {
  return (node as YamlNode | null)?.range?.[0];
}
