/** A resource name that this agent may serve, taken apart. */
export type ResourceName =
  | { readonly kind: 'identity' }
  | { readonly kind: 'bundle' }
  | { readonly kind: 'certificate-files'; readonly certificatePath: string; readonly keyPath: string }
  | { readonly kind: 'root-file'; readonly path: string }
  | { readonly kind: 'system-roots' };

/** The workload's own certificate and key, and the roots that it trusts, as Istio names them. */
export const IDENTITY_NAME = 'default';
export const BUNDLE_NAME = 'ROOTCA';

const CERTIFICATE_FILES = 'file-cert:';
const ROOT_FILE = 'file-root:';

/**
 * Reads a resource name. `file-cert:CERT~KEY` has exactly two parts and `file-root:CA` exactly one, none empty; anything else that is not
 * `default` or `ROOTCA` is nobody's name, and never stands for the identity.
 *
 * @returns undefined for a name that is not served.
 */
export function parseResourceName(name: string): ResourceName | undefined {
  if (name === IDENTITY_NAME) return { kind: 'identity' };
  if (name === BUNDLE_NAME) return { kind: 'bundle' };
  if (name.includes('\0')) return undefined;
  if (name.startsWith(CERTIFICATE_FILES)) {
    const [certificatePath, keyPath, ...more] = name.slice(CERTIFICATE_FILES.length).split('~');
    return certificatePath && keyPath && more.length === 0 ? { kind: 'certificate-files', certificatePath, keyPath } : undefined;
  }
  if (name.startsWith(ROOT_FILE)) {
    const path = name.slice(ROOT_FILE.length);
    if (path.length === 0 || path.includes('~')) return undefined;
    return path === 'system' ? { kind: 'system-roots' } : { kind: 'root-file', path };
  }
  return undefined;
}

/** The class of a name for metrics, where names themselves would be too many. */
export function nameClass(name: string): 'default' | 'ROOTCA' | 'file' {
  if (name === IDENTITY_NAME || name === BUNDLE_NAME) return name;
  return 'file';
}

/** Bundle before leaf before the rest: a proxy must trust the new root before it meets a certificate of it. */
export function nameRank(name: string): number {
  if (name === BUNDLE_NAME) return 0;
  return name === IDENTITY_NAME ? 1 : 2;
}
