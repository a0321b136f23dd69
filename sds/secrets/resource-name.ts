import { parseSpiffeId, parseTrustDomain } from '../../agent/identity/spiffe-id';

/** A name of files that may be served. */
export type FileName =
  | {
      readonly kind: 'certificate-files';
      readonly certificatePath: string;
      readonly keyPath: string;
    }
  | { readonly kind: 'root-file'; readonly path: string }
  | { readonly kind: 'system-roots' };

/** A resource name that this agent may serve, taken apart. */
export type ResourceName =
  | { readonly kind: 'identity' }
  | { readonly kind: 'bundle' }
  /** The certificate of one SPIFFE ID, which may be ours. */
  | { readonly kind: 'spiffe-id'; readonly id: string }
  /** What peers of one trust domain are judged by. */
  | { readonly kind: 'trust-domain'; readonly trustDomain: string }
  /** What peers of every trust domain that is believed are judged by. */
  | { readonly kind: 'all-bundles' }
  | FileName;

/** The workload's own certificate and key, and the roots that it trusts, as Istio and SPIRE name them; and SPIRE's name for all bundles. */
export const IDENTITY_NAME = 'default';
export const BUNDLE_NAME = 'ROOTCA';
const ALL_BUNDLES_NAME = 'ALL';

const CERTIFICATE_FILES = 'file-cert:';
const ROOT_FILE = 'file-root:';
const SPIFFE = 'spiffe://';

/**
 * Reads a resource name. `file-cert:CERT~KEY` has exactly two parts and `file-root:CA` exactly one, none empty; `spiffe://TD` and
 * `spiffe://TD/PATH` are read to the letter; anything else that is not `default`, `ROOTCA` or `ALL` is nobody's name, and never stands for
 * the identity.
 *
 * @returns undefined for a name that is not served.
 */
export function parseResourceName(name: string): ResourceName | undefined {
  if (name === IDENTITY_NAME) return { kind: 'identity' };
  if (name === BUNDLE_NAME) return { kind: 'bundle' };
  if (name === ALL_BUNDLES_NAME) return { kind: 'all-bundles' };
  if (name.startsWith(SPIFFE)) return parseSpiffeName(name);
  return parseFileName(name);
}

/** As `parseResourceName`, for names of files only. */
export function parseFileName(name: string): FileName | undefined {
  if (name.includes('\0')) return undefined;
  if (name.startsWith(CERTIFICATE_FILES)) {
    const [certificatePath, keyPath, ...more] = name.slice(CERTIFICATE_FILES.length).split('~');
    return certificatePath && keyPath && more.length === 0
      ? { kind: 'certificate-files', certificatePath, keyPath }
      : undefined;
  }
  if (name.startsWith(ROOT_FILE)) {
    const path = name.slice(ROOT_FILE.length);
    if (path.length === 0 || path.includes('~')) return undefined;
    return path === 'system' ? { kind: 'system-roots' } : { kind: 'root-file', path };
  }
  return undefined;
}

function parseSpiffeName(name: string): ResourceName | undefined {
  try {
    const rest = name.slice(SPIFFE.length);
    if (!rest.includes('/')) return { kind: 'trust-domain', trustDomain: parseTrustDomain(rest) };
    parseSpiffeId(name);
    return { kind: 'spiffe-id', id: name };
  } catch {
    return undefined;
  }
}

export function isFile(name: ResourceName): name is FileName {
  return (
    name.kind === 'certificate-files' || name.kind === 'root-file' || name.kind === 'system-roots'
  );
}

/** The class of a name for metrics, where names themselves would be too many. */
export function nameClass(name: string): 'default' | 'ROOTCA' | 'ALL' | 'spiffe' | 'file' {
  if (name === IDENTITY_NAME || name === BUNDLE_NAME || name === ALL_BUNDLES_NAME) return name;
  return name.startsWith(SPIFFE) ? 'spiffe' : 'file';
}

/** Bundle before leaf before the rest: a proxy must trust the new root before it meets a certificate of it. */
export function nameRank(name: string): number {
  const kind = parseResourceName(name)?.kind;
  if (isTrust(kind)) return 0;
  return kind === 'identity' || kind === 'spiffe-id' ? 1 : 2;
}

/** Whether peers are judged by what has such a name. */
export function isTrust(kind: ResourceName['kind'] | undefined): boolean {
  return kind === 'bundle' || kind === 'trust-domain' || kind === 'all-bundles';
}
