/** Who is to sign. `istiod-ra` is istiod that has a Kubernetes signer sign; `builtin` is our own authority, in process or as `ca serve`. */
export const LINT_BACKENDS = ['istiod', 'istiod-ra', 'istio-csr', 'kubernetes-csr', 'builtin'] as const;
export type LintBackend = (typeof LINT_BACKENDS)[number];
