import { readYamlDocuments } from '../base/yaml-documents';
import type { Mesh, PathNormalization } from './mesh';
import { objectOf, objectsOf, textOf, textsOf } from './resources/fields';
import { formatPath, type Problem } from './resources/problem';
import type { FieldPath, Json, JsonObject } from './resources/resource';
import { boolean, choice, duration, integer, list, map, message, text } from './resources/shapes';
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

const texts = list(text);
const grpcProvider = {
  service: text,
  port: integer,
  timeout: duration,
  failOpen: boolean,
  statusOnError: text,
  includeRequestBodyInCheck: message({
    maxRequestBytes: integer,
    allowPartialMessage: boolean,
    packAsBytes: boolean,
  }),
};
const httpProvider = {
  ...grpcProvider,
  pathPrefix: text,
  includeHeadersInCheck: texts,
  includeRequestHeadersInCheck: texts,
  includeAdditionalHeadersInCheck: map(text),
  headersToUpstreamOnAllow: texts,
  headersToDownstreamOnDeny: texts,
  headersToDownstreamOnAllow: texts,
};

const MESH_CONFIG = message({
  trustDomain: text,
  trustDomainAliases: texts,
  rootNamespace: text,
  extensionProviders: list(
    message({
      name: text,
      envoyExtAuthzHttp: message(httpProvider),
      envoyExtAuthzGrpc: message(grpcProvider),
    }),
  ),
  pathNormalization: message({ normalization: choice(...NORMALIZATIONS) }),
  meshMTLS: message({
    minProtocolVersion: choice('TLS_AUTO', 'TLSV1_2', 'TLSV1_3'),
    cipherSuites: texts,
  }),
  enableAutoMtls: boolean,
  caCertificates: list(
    message({ pem: text, spiffeBundleUrl: text, certSigners: texts, trustDomains: texts }),
  ),
});

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
  const [document, ...others] = read.filter(({ value }) => value !== null);
  if (!document) return { mesh: defaultMesh(trustDomain), problems: [], unused: [] };
  const inner = objectOf(objectOf(document.value as Json).data).mesh;
  if (typeof inner === 'string') return readMesh({ name: file.name, text: inner }, trustDomain);
  const problems: Problem[] = [];
  const unused: Problem[] = [];
  const sourceOf = (path: FieldPath) => ({ ...start, line: document.lineOf(path) });
  for (const { lineOf } of others)
    problems.push({
      source: { ...start, line: lineOf([]) },
      path: '',
      message: 'a second document: a MeshConfig is one',
    });
  const taker = new Taker(
    (path, text, hint) =>
      problems.push({ source: sourceOf(path), path: formatPath(path), message: text, hint }),
    (path, _, hint) =>
      unused.push({
        source: sourceOf(path),
        path: formatPath(path),
        message: 'has no effect here',
        // Of a misspelt one; a list of all that have one would hide it.
        hint: hint?.startsWith('did you mean') ? hint : undefined,
      }),
  );
  const config = objectOf(taker.take(document.value, MESH_CONFIG, []));
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
  const suites = [...new Set(textsOf(mtls.cipherSuites))].filter(isCipherSuite);
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

/**
 * An Envoy refuses a listener over a cipher that it does not know, so istiod leaves those out.
 *
 * @see istio pkg/config/security FilterCipherSuites
 */
function isCipherSuite(name: string): boolean {
  return name === 'ALL' || /^[^\p{L}\p{N}]/u.test(name) || CIPHER_SUITES.has(name);
}

const CIPHER_SUITES = new Set([
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
  'ECDHE-ECDSA-AES128-SHA',
  'ECDHE-RSA-AES128-SHA',
  'ECDHE-ECDSA-AES256-SHA',
  'ECDHE-RSA-AES256-SHA',
  'AES128-GCM-SHA256',
  'AES256-GCM-SHA384',
  'AES128-SHA',
  'AES256-SHA',
  'DES-CBC3-SHA',
]);
