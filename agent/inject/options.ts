import type { BootstrapOptions } from '../envoy/bootstrap';

/** What to put into a pod. */
export interface InjectOptions {
  /** The agent's image. */
  readonly image: string;
  /** The authorities, as `--ca` names them; they decide which credentials the container gets. None of them keeps its state in a pod. */
  readonly cas: readonly InjectableCa[];
  /** Settings of `keyturn run` by name, which become its flags in this order; `ca` and `admin-address` among them. */
  readonly settings: Readonly<Record<string, string>>;
  /** Where health and metrics are served; the pod's probes ask there. */
  readonly adminPort: number;
  /** Audience of the service account token, e.g. `istio-ca`. */
  readonly audience: string;
  /** ConfigMap whose `root-cert.pem` holds the roots; undefined mounts none. */
  readonly rootConfigMap: string | undefined;
  /** `native`: an init container with restartPolicy Always (Kubernetes 1.29); `plain`: one more container. */
  readonly sidecar: 'native' | 'plain';
  readonly resources: Resources;
  /** The proxy that uses the identity; undefined mounts the socket for the agent alone. */
  readonly envoy: EnvoyChoice | undefined;
}

/** Where a pod can get a certificate. `builtin` would make every pod an authority of its own; `file` needs mounts that are the pod's to make. */
export const INJECTABLE_CAS = ['istiod', 'istio-csr', 'kubernetes-csr'] as const;
export type InjectableCa = (typeof INJECTABLE_CAS)[number];

/** Quantities as Kubernetes writes them, e.g. `10m` and `64Mi`. Undefined sets none. */
export interface Resources {
  readonly cpuRequest: string;
  readonly memoryRequest: string;
  readonly cpuLimit: string | undefined;
  readonly memoryLimit: string;
}

export type EnvoyChoice =
  | {
      /** An Envoy of ours beside the application. */
      readonly kind: 'beside';
      readonly image: string;
      /** What it listens for and calls. The socket is ours to say. */
      readonly bootstrap: Pick<
        BootstrapOptions,
        'trustDomain' | 'admin' | 'inbound' | 'outbound' | 'sessionResumption'
      >;
    }
  /** A container that is there already and gets the socket mounted. */
  | { readonly kind: 'join'; readonly container: string };
