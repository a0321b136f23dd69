import type { AgentError } from '../base/errors';
import type { LogFormat, LogLevel } from '../base/log';
import type { EngineName } from '../identity/engine';
import type { KeyAlgorithm, KeyFormat } from '../identity/keys';
import type { SpiffeId } from '../identity/spiffe-id';
import type { CaName, CSR_USAGES } from './options';
import type { FileEntry } from './settings-file';

/** Every setting of `keyturn run`, checked. Paths are as given; relative ones are relative to the working directory. */
export interface Config {
  /**
   * Where certificates come from, best first: CAs by name, or mounted files (`FILE_MOUNTED_CERTS`) alone. At least one, but for a process
   * whose workloads say it themselves.
   */
  readonly ca: readonly CaName[];
  /** `host:port`, one for each of istiod and istio-csr in `ca`, in that order. */
  readonly caAddresses: readonly string[];
  /** A PEM file, or `SYSTEM`. */
  readonly caRoot: string | undefined;
  readonly caServerName: string | undefined;
  readonly token: string;
  readonly provCert: string | undefined;
  readonly clusterId: string | undefined;
  readonly certSigner: string | undefined;
  /** There where `ca` has `kubernetes-csr`. */
  readonly signerName: string | undefined;
  readonly csrUsages: (typeof CSR_USAGES)[number];
  readonly kubeconfig: string | undefined;
  /** By lower-case name. Values may be secrets. */
  readonly caHeaders: ReadonlyMap<string, string>;
  /** How long an authority may take to answer, before patience grows. */
  readonly caTimeoutMs: number;
  readonly caDir: string;
  /** The key of a self-signed root that `builtin` makes. */
  readonly caKeyAlgorithm: KeyAlgorithm;
  /**
   * Undefined where `ca` is `file` alone and no identity was set: then the mounted certificate says who we are; and where workloads say who
   * they are.
   */
  readonly id: SpiffeId | undefined;
  readonly keyAlgorithm: KeyAlgorithm;
  readonly keyFormat: KeyFormat;
  readonly engine: EngineName;
  readonly ttlMs: number;
  /** `ratio` in (0, 1); `jitterRatio` in [0, ratio). */
  readonly renewRatio: number;
  readonly renewJitter: number;
  readonly sdsSocket: string;
  /** e.g. 0o600. */
  readonly sdsSocketMode: number;
  /** User, and group, by name or number, that are to own the socket. */
  readonly sdsSocketOwner: string | undefined;
  readonly sdsSocketGroup: string | undefined;
  /** Directories below which `file-cert:` and `file-root:` may name files. */
  readonly sdsFileDirs: readonly string[];
  /** What clients of the Workload API are told that the identity is for. */
  readonly svidHint: string | undefined;
  /** At most 24 h. */
  readonly jwtSvidTtlMs: number;
  /** Directory that is read where `ca` is `file`. */
  readonly credentialsDir: string;
  /** One file with key and certificates, read in place of the directory; then there is a `trustBundle`. */
  readonly credentialBundle: string | undefined;
  /** PEM file of roots that certificates are judged by. */
  readonly trustBundle: string | undefined;
  /** Other trust domains whose roots may stand among ours. */
  readonly rootTrustDomains: readonly string[];
  /** A path or a URL of revocation lists; undefined where revocation is not looked at. */
  readonly crl: string | undefined;
  /** Paths or URLs of bundles, by trust domain; none of them is our own. */
  readonly federatedBundles: ReadonlyMap<string, string>;
  readonly outputCerts: string | undefined;
  readonly stateDir: string | undefined;
  /** A directory of files, or a file with a list; undefined for the one workload of these settings. */
  readonly workloads: string | undefined;
  readonly workloadsReady: 'all' | 'any';
  readonly onRemoval: 'keep' | 'delete';
  /** `host:port` of health and metrics; port 0 takes a free one. */
  readonly adminAddress: string;
  readonly controlSocket: string;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
}

/** Where a value came from, e.g. `flag --ttl`, `environment SECRET_TTL`, `file keyturn.yaml: ttl`, `default`. */
export type Origin = string;

/** What a list of workloads says about one of them. */
export interface WorkloadEntry {
  /** Lower-case letters, digits, `-`, `_` and `.`; at most 63 of them. */
  readonly name: string;
  /** The file that says it. */
  readonly from: string;
  /** How errors call the place, e.g. `file workloads/cart.yaml`. */
  readonly origin: string;
  readonly settings: readonly FileEntry[];
}

/** A loaded configuration with what `config show` prints: every setting in table order. */
export interface LoadedConfig {
  readonly config: Config;
  /** The settings of one workload of `config.workloads`: its own before those of the process. */
  readonly judgeWorkload: (entry: WorkloadEntry) => Config | AgentError;
  readonly settings: readonly {
    readonly name: string;
    readonly value: string;
    readonly origin: Origin;
  }[];
}
