/** The agent's container. */
export const AGENT_CONTAINER = 'keyturn';
/** The Envoy that `--envoy` puts beside it. */
export const ENVOY_CONTAINER = 'keyturn-envoy';
/** In memory, for the SDS socket: whoever mounts it reaches the key, so it is the agent's and its Envoy's alone. */
export const SOCKET_VOLUME = 'keyturn-socket';
/** In memory, for the control socket, which nobody shares. */
export const RUN_VOLUME = 'keyturn-run';
/** The token that proves us to the CA. */
export const TOKEN_VOLUME = 'keyturn-token';
/** The roots that the CA and its certificates are judged by. */
export const ROOT_VOLUME = 'keyturn-root';
/** What `--ca kubernetes-csr` reaches the API with, whatever automountServiceAccountToken says. */
export const API_VOLUME = 'keyturn-api';

/** Every name in a pod that is ours where the annotation says so. */
export const OUR_CONTAINERS: readonly string[] = [AGENT_CONTAINER, ENVOY_CONTAINER];
export const OUR_VOLUMES: readonly string[] = [
  SOCKET_VOLUME,
  RUN_VOLUME,
  TOKEN_VOLUME,
  ROOT_VOLUME,
  API_VOLUME,
];

/** Annotation of a pod that has been injected: what has our names is ours, and may be changed. */
export const INJECTED_ANNOTATION = 'keyturn.dev/injected';
/** Label or annotation of a pod: `false` keeps it as it is, `true` asks for the agent (the webhook's opt-in). */
export const INJECT_MARK = 'keyturn.dev/inject';

/** The user of the image, and of Istio's proxy. */
export const AGENT_USER = 1337;

/** Where the settings of `keyturn run` look by default, with the working directory `/`. */
export const SOCKET_DIR = '/var/run/secrets/workload-spiffe-uds';
/** What Istio's proxy is told by it, the agent is told by it too. */
export const SOCKET_FILE_VARIABLE = 'WORKLOAD_IDENTITY_SOCKET_FILE';
export const SOCKET_PATH = `${SOCKET_DIR}/socket`;
export const RUN_DIR = '/var/run/keyturn';
export const TOKEN_DIR = '/var/run/secrets/tokens';
export const TOKEN_FILE = 'istio-token';
export const ROOT_DIR = '/var/run/secrets/istio';
export const ROOT_FILE = 'root-cert.pem';
export const API_DIR = '/var/run/secrets/kubernetes.io/serviceaccount';

/** The container of Istio's agent and its Envoy. */
export const ISTIO_PROXY = 'istio-proxy';
