import { createHash } from 'node:crypto';
import { AgentError, errorText } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import { certificatesPem, parseRootBundle } from '../identity/certificate';
import type { TrustBundle } from '../identity/trust-bundle';

/** What the CA's server must prove itself with. Leaves are never judged by it. */
export interface CaRoot {
  /** PEM, for TLS: what of `bundle` it is to know. */
  readonly pem: Buffer;
  /** The roots, where it is a file of the mesh; undefined for the machine's own roots, which say nothing about workloads. */
  readonly bundle: TrustBundle | undefined;
  /** Equal versions are equal roots for TLS. */
  readonly version: string;
}

/** `SYSTEM`, or the path of a PEM file. */
export type CaRootSource =
  | { readonly kind: 'system' }
  | { readonly kind: 'file'; readonly path: string };

/** Where distributions keep the roots of the machine; the first that exists counts, as in Go's crypto/x509. */
const SYSTEM_FILES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/pki/tls/cacert.pem',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/cert.pem',
] as const;

/**
 * Where the root for the CA's server is, by upstream's rules: what was configured (`SYSTEM` is the machine's roots), else root-cert.pem of
 * the provisioning directory, else the mounted root.
 */
export function caRootSource(
  configured: string | undefined,
  provisioningDir: string | undefined,
  mountedRoot: string,
): CaRootSource {
  if (configured === 'SYSTEM') return { kind: 'system' };
  return {
    kind: 'file',
    path:
      configured ??
      (provisioningDir === undefined ? mountedRoot : `${provisioningDir}/root-cert.pem`),
  };
}

/**
 * Reads the roots anew. Damaged blocks of a file are skipped; one good root must be left.
 *
 * @throws AgentError ERR_CA_UNAVAILABLE (retry soon): missing or without a root. Without it the CA's server is not spoken to at all.
 */
export async function readCaRoot(source: CaRootSource): Promise<CaRoot> {
  return source.kind === 'file' ? readMeshRoot(source.path) : readSystemRoots();
}

async function readMeshRoot(path: string): Promise<CaRoot> {
  try {
    const { bundle } = parseRootBundle(
      await readSmallFile(path, { field: path, code: 'ERR_CA_UNAVAILABLE' }),
      path,
    );
    return { pem: certificatesPem(bundle.rootsDer), bundle, version: bundle.version };
  } catch (cause) {
    throw new AgentError(
      'ERR_CA_UNAVAILABLE',
      `read the root of the CA's server ${path}: ${errorText(cause)}`,
      {
        retry: 'soon',
        cause,
        hint: 'name the root that the CA serves TLS with: --ca-root FILE, or --ca-root SYSTEM for the roots of this machine',
      },
    );
  }
}

async function readSystemRoots(): Promise<CaRoot> {
  for (const path of SYSTEM_FILES) {
    const pem = await readSmallFile(path, { field: path, code: 'ERR_CA_UNAVAILABLE' }).catch(
      () => undefined,
    );
    if (pem)
      return { pem, bundle: undefined, version: createHash('sha256').update(pem).digest('hex') };
  }
  throw new AgentError(
    'ERR_CA_UNAVAILABLE',
    `read the roots of this machine: none of ${SYSTEM_FILES.join(', ')} is there`,
    {
      retry: 'soon',
      hint: 'install ca-certificates, or name a file: --ca-root FILE',
    },
  );
}
