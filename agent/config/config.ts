import type { LogFormat, LogLevel } from '../base/log';
import type { EngineName } from '../identity/engine';
import type { KeyAlgorithm, KeyFormat } from '../identity/keys';
import type { SpiffeId } from '../identity/spiffe-id';
import type { CaName, CSR_USAGES } from './options';

/** Every setting of `keyturn run`, checked. Paths are as given; relative ones are relative to the working directory. */
export interface Config {
  /** Where certificates come from, best first: CAs by name, or mounted files (`FILE_MOUNTED_CERTS`) alone. At least one. */
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
  readonly caDir: string;
  /** The key of a self-signed root that `builtin` makes. */
  readonly caKeyAlgorithm: KeyAlgorithm;
  /** Undefined only where `ca` is `file` alone and no identity was set: then the mounted certificate says who we are. */
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
  /** Group name or number that is to own the socket. */
  readonly sdsSocketGroup: string | undefined;
  /** Directories below which `file-cert:` and `file-root:` may name files. */
  readonly sdsFileDirs: readonly string[];
  /** What clients of the Workload API are told that the identity is for. */
  readonly svidHint: string | undefined;
  /** Directory that is read where `ca` is `file`. */
  readonly credentialsDir: string;
  /** One file with key and certificates, read in place of the directory; then there is a `trustBundle`. */
  readonly credentialBundle: string | undefined;
  /** PEM file of roots that certificates are judged by. */
  readonly trustBundle: string | undefined;
  /** A path or a URL of revocation lists; undefined where revocation is not looked at. */
  readonly crl: string | undefined;
  readonly outputCerts: string | undefined;
  readonly stateDir: string | undefined;
  /** `host:port` of health and metrics; port 0 takes a free one. */
  readonly adminAddress: string;
  readonly controlSocket: string;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
}

/** Where a value came from, e.g. `flag --ttl`, `environment SECRET_TTL`, `file keyturn.yaml: ttl`, `default`. */
export type Origin = string;

/** A loaded configuration with what `config show` prints: every setting in table order. */
export interface LoadedConfig {
  readonly config: Config;
  readonly settings: readonly { readonly name: string; readonly value: string; readonly origin: Origin }[];
}
