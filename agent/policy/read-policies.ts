import { readYamlDocuments } from '../base/yaml-documents';
import { objectOf, textMapOf, textOf } from './resources/fields';
import { ISTIO_GROUPS, KINDS, METADATA } from './resources/kinds';
import { formatPath, type Problem } from './resources/problem';
import type {
  FieldPath,
  Json,
  JsonObject,
  Resource,
  ResourceKind,
  Source,
} from './resources/resource';
import { Taker } from './resources/take';
import { validate } from './validate/validate';

/** A file with policies, and how it is called. */
export interface PolicyFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** What files hold. With a problem the set is not whole, and must not be put in force. */
export interface ReadPolicies {
  readonly resources: readonly Resource[];
  /** Everything that is refused, in the order of the files. */
  readonly problems: readonly Problem[];
  /** Documents of other API groups, which have no effect here. */
  readonly skipped: readonly Problem[];
}

export const MAX_FILE_BYTES = 1 << 20;
export const MAX_BYTES = 64 << 20;
export const MAX_DOCUMENTS = 10_000;

/**
 * Reads Istio resources as YAML or JSON. Fields and kinds that are unknown are refused: istiod leaves
 * out a field that it does not know, and a policy becomes wider than it was written.
 *
 * @param namespace  Of documents that name none.
 */
export function readPolicies(files: readonly PolicyFile[], namespace = 'default'): ReadPolicies {
  const reader = new Reader(namespace);
  let bytes = 0;
  for (const file of files) {
    bytes += file.bytes.length;
    if (bytes > MAX_BYTES) {
      reader.refuse({ file: file.name, line: 1 }, `files hold more than ${MAX_BYTES >> 20} MiB`);
      break;
    }
    reader.file(file);
  }
  return reader.result();
}

/** One document, with what finds its lines. */
interface Document {
  readonly value: unknown;
  readonly source: Source;
  /** Where it begins in its document: a List's items are below it. */
  readonly base: FieldPath;
  readonly lineOf: (path: FieldPath) => number;
}

class Reader {
  readonly #resources: Resource[] = [];
  readonly #problems: Problem[] = [];
  readonly #skipped: Problem[] = [];
  readonly #known = new Map<string, Source>();
  #documents = 0;

  constructor(private readonly namespace: string) {}

  result(): ReadPolicies {
    return { resources: this.#resources, problems: this.#problems, skipped: this.#skipped };
  }

  refuse(source: Source, message: string, hint?: string): undefined {
    this.#problems.push({ source, path: '', message, hint });
  }

  file({ name, bytes }: PolicyFile): undefined {
    const start: Source = { file: name, line: 1 };
    if (bytes.length > MAX_FILE_BYTES)
      return this.refuse(start, `the file is larger than ${MAX_FILE_BYTES >> 20} MiB`);
    const text = decode(bytes);
    if (text === undefined)
      return this.refuse(start, 'the file is not UTF-8', 'convert it with iconv -t utf-8');
    const read = readYamlDocuments(text);
    if ('reason' in read)
      return this.refuse({ file: name, line: read.line }, `is not YAML: ${read.reason}`);
    for (const { value, lineOf } of read)
      this.#document({
        value,
        source: { file: name, line: lineOf([]) },
        base: [],
        lineOf,
      });
  }

  #document(document: Document): undefined {
    const { value, source } = document;
    // What stands between two `---`, or a file of comments.
    if (value === null || value === undefined) return;
    this.#documents += 1;
    if (this.#documents === MAX_DOCUMENTS + 1)
      this.refuse(source, `there are more than ${MAX_DOCUMENTS} documents`);
    if (this.#documents > MAX_DOCUMENTS) return;
    if (typeof value !== 'object' || Array.isArray(value))
      return this.refuse(source, 'a document must be a mapping with apiVersion and kind');
    const { apiVersion, kind, items } = value as Readonly<Record<string, unknown>>;
    if (typeof apiVersion !== 'string' || typeof kind !== 'string')
      return this.refuse(source, 'apiVersion and kind must be texts');
    if (apiVersion === 'v1' && kind === 'List') return this.#list(document, items);
    this.#resource(document, apiVersion, kind);
  }

  #list(document: Document, items: unknown): undefined {
    if (!Array.isArray(items))
      return this.refuse(document.source, 'items of a List must be a list');
    for (const [index, value] of items.entries()) {
      const base = [...document.base, 'items', index];
      const line = document.lineOf(base);
      this.#document({ ...document, value, base, source: { ...document.source, line } });
    }
  }

  #resource(document: Document, apiVersion: string, kind: string): undefined {
    const { source } = document;
    const at = apiVersion.lastIndexOf('/');
    const [group, version] = [apiVersion.slice(0, Math.max(at, 0)), apiVersion.slice(at + 1)];
    const known = Object.hasOwn(KINDS, kind) ? KINDS[kind as ResourceKind] : undefined;
    if (!known || known.group !== group) return this.#otherKind(source, group, kind);
    if (!known.versions.includes(version))
      return this.refuse(
        source,
        `apiVersion ${apiVersion} is none of ${kind}`,
        `write ${known.group}/${known.versions[0]}`,
      );
    const before = this.#problems.length;
    const fields = this.#take(document, kind as ResourceKind);
    if (this.#problems.length > before) return;
    const resource = this.#named(document, kind as ResourceKind, fields);
    if (!resource) return;
    const problems = validate(resource);
    this.#problems.push(...problems);
    if (problems.length === 0) this.#resources.push(resource);
  }

  /** A kind of Istio's that has no effect would leave out what its author relies on. */
  #otherKind(source: Source, group: string, kind: string): undefined {
    if (ISTIO_GROUPS.includes(group))
      return this.refuse(
        source,
        `${kind} of ${group} has no effect here`,
        `known: ${Object.keys(KINDS).join(', ')}`,
      );
    this.#skipped.push({
      source,
      path: '',
      message: `${kind} of ${group || 'the core group'} is no policy, skipped`,
    });
  }

  #take(document: Document, kind: ResourceKind): JsonObject {
    const at = this.#at(document);
    const taker = new Taker((path, message, hint) =>
      this.#problems.push({ source: at(path), path: formatPath(path), message, hint }),
    );
    const shape = {
      type: 'message',
      fields: new Map([
        ['apiVersion', ANYTHING],
        ['kind', ANYTHING],
        ['metadata', METADATA],
        ['spec', KINDS[kind].spec],
        ['status', ANYTHING],
      ]),
    } as const;
    return objectOf(taker.take(document.value, shape, []));
  }

  #at({ source, base, lineOf }: Document): (path: FieldPath) => Source {
    return (path) => ({ file: source.file, line: lineOf([...base, ...path]) });
  }

  #named(document: Document, kind: ResourceKind, fields: JsonObject): Resource | undefined {
    const { source } = document;
    const metadata = objectOf(fields.metadata);
    const name = textOf(metadata.name);
    const namespace = textOf(metadata.namespace) ?? this.namespace;
    if (name === undefined) {
      this.#problems.push({ source, path: 'metadata.name', message: 'is missing' });
      return undefined;
    }
    for (const [field, value] of Object.entries({ name, namespace }))
      if (!NAME.test(value)) {
        const path = ['metadata', field];
        const message = `must be at most 253 characters without spaces and any of / [ ]`;
        this.#problems.push({ source: this.#at(document)(path), path: formatPath(path), message });
        return undefined;
      }
    // A slash stands in neither, so that no two share a key.
    const key = `${kind} ${namespace}/${name}`;
    const other = this.#known.get(key);
    if (other) {
      const message = `${key} is there already, at ${other.file}:${other.line}`;
      this.refuse(source, message, 'remove one, or give it another name');
      return undefined;
    }
    this.#known.set(key, source);
    return {
      kind,
      namespace,
      name,
      labels: textMapOf(metadata.labels),
      annotations: textMapOf(metadata.annotations),
      createdAt: timeOf(metadata.creationTimestamp),
      spec: objectOf(fields.spec),
      source,
      at: this.#at(document),
    };
  }
}

/** Envoy's policies are named by them: `ns[NAMESPACE]-policy[NAME]-rule[0]`. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
const NAME = /^[^\s/[\]\x00-\x1f\x7f]{1,253}$/;

const ANYTHING = { type: 'anything' } as const;

function decode(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

function timeOf(value: Json | undefined): number | undefined {
  const time = typeof value === 'string' ? Date.parse(value) : Number.NaN;
  return Number.isNaN(time) ? undefined : time;
}
