import { readYamlDocuments } from '../base/yaml-documents';
import type { Mesh, PathNormalization } from './mesh';
import { objectOf, objectsOf, textOf, textsOf } from './resources/fields';
import { formatPath, type Problem } from './resources/problem';
import type { FieldPath, JsonObject } from './resources/resource';
import { anything, boolean, choice, list, message, type Shape, text } from './resources/shapes';
import { Taker } from './resources/take';

/** A MeshConfig that was read. */
export interface ReadMesh {
  readonly mesh: Mesh;
  readonly problems: readonly Problem[];
  /** Fields that have no effect here, by name. */
  readonly unused: readonly Problem[];
}

const NORMALIZATIONS: readonly PathNormalization[] = [
  'DEFAULT',
  'NONE',
  'BASE',
  'MERGE_SLASHES',
  'DECODE_AND_MERGE_SLASHES',
];

const FIELDS = {
  trustDomain: text,
  trustDomainAliases: list(text),
  rootNamespace: text,
  extensionProviders: list(anything),
  pathNormalization: message({ normalization: choice(...NORMALIZATIONS) }),
  meshMTLS: message({
    minProtocolVersion: choice('TLS_AUTO', 'TLSV1_2', 'TLSV1_3'),
    cipherSuites: list(text),
    ecdhCurves: list(text),
  }),
  enableAutoMtls: boolean,
  caCertificates: list(anything),
} satisfies Record<string, Shape>;

export const DEFAULT_TRUST_DOMAIN = 'cluster.local';
const ROOT_NAMESPACE = 'istio-system';

/** The mesh of which no file says anything. */
export function defaultMesh(trustDomain = DEFAULT_TRUST_DOMAIN): Mesh {
  return meshOf({}, trustDomain);
}

/**
 * Reads a MeshConfig, or a ConfigMap `istio` that holds one under `mesh`. What it says beyond the
 * security of workloads is named, not refused: the file is the mesh's, not ours.
 *
 * @param trustDomain  The agent's own, which the file's must equal; undefined to take the file's.
 * @see Istio, MeshConfig
 */
export function readMesh(
  file: { readonly name: string; readonly text: string },
  trustDomain: string | undefined,
): ReadMesh {
  const read = readYamlDocuments(file.text);
  const start = { file: file.name, line: 1 };
  if ('reason' in read) {
    const source = { ...start, line: read.line };
    return broken({ source, path: '', message: `is not YAML: ${read.reason}` });
  }
  const [document] = read;
  const inner = objectOf(objectOf(document?.value as JsonObject).data).mesh;
  if (typeof inner === 'string') return readMesh({ name: file.name, text: inner }, trustDomain);
  const problems: Problem[] = [];
  const sourceOf = (path: FieldPath) => ({ ...start, line: document?.lineOf(path) ?? 1 });
  const known: Record<string, unknown> = {};
  const unused: Problem[] = [];
  for (const [name, value] of Object.entries(objectOf(document?.value as JsonObject)))
    if (name in FIELDS) known[name] = value;
    else unused.push({ source: sourceOf([name]), path: name, message: 'has no effect here' });
  const taker = new Taker((path, text, hint) =>
    problems.push({ source: sourceOf(path), path: formatPath(path), message: text, hint }),
  );
  const config = objectOf(taker.take(known, message(FIELDS), []));
  const named = textOf(config.trustDomain);
  if (named !== undefined && trustDomain !== undefined && named !== trustDomain)
    problems.push({
      source: sourceOf(['trustDomain']),
      path: 'trustDomain',
      message: `is ${named}, and the trust domain here is ${trustDomain}`,
      hint: 'give the same --trust-domain',
    });
  return { mesh: meshOf(config, trustDomain ?? named ?? DEFAULT_TRUST_DOMAIN), problems, unused };
}

function broken(problem: Problem): ReadMesh {
  return { mesh: defaultMesh(), problems: [problem], unused: [] };
}

function meshOf(config: JsonObject, trustDomain: string): Mesh {
  const mtls = objectOf(config.meshMTLS);
  const suites = textsOf(mtls.cipherSuites);
  const normalization = textOf(objectOf(config.pathNormalization).normalization);
  return {
    trustDomain,
    // As istiod keeps them.
    trustDomainAliases: [...new Set(textsOf(config.trustDomainAliases))].sort(),
    rootNamespace: textOf(config.rootNamespace) ?? ROOT_NAMESPACE,
    extensionProviders: objectsOf(config.extensionProviders),
    pathNormalization: NORMALIZATIONS.find((each) => each === normalization) ?? 'DEFAULT',
    minTls: mtls.minProtocolVersion === 'TLSV1_3' ? 'TLSv1_3' : 'TLSv1_2',
    cipherSuites: suites.length === 0 ? undefined : suites,
    foreignTrustDomains: objectsOf(config.caCertificates).flatMap((each) =>
      textsOf(each.trustDomains),
    ),
  };
}
