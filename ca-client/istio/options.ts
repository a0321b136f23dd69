import { invalid } from '../../agent/base/errors';
import { type HostPort, parseHostPort } from '../../agent/base/host-port';
import type { Lease } from '../../agent/base/pool';
import { ISTIO_AUDIENCE } from '../../agent/jwt/token-claims';
import { type CaRootSource, caRootSource } from '../../agent/trust/ca-root';
import type { CaChannel, ChannelOptions } from './channel';
import type { ClientCertificate } from './client-certificate';

/** How to reach an `istio.v1.auth` CA and to prove ourselves to it. Paths are relative to the working directory. */
export interface IstioCaOptions {
  readonly name: 'istiod' | 'istio-csr';
  /** `host:port` (CA_ADDR). */
  readonly address: string;
  /** Without it an address of port 15010, istiod's without TLS, is refused: whoever listens on the way would have the token. */
  readonly allowPlaintext?: boolean | undefined;
  /** What the server's certificate must be for; default the host of `address`. */
  readonly serverName?: string | undefined;
  /** The root of the server's certificate (CA_ROOT_CA): a PEM file, or `SYSTEM`. Default by `caRootSource`. */
  readonly caRoot?: string | undefined;
  /** What leaves are judged by and peers are told. Default the mounted root, or where there is none `caRoot`, if that is a file. */
  readonly trustBundle?: string | undefined;
  /** The trust domains whose roots may be among those; undefined takes any. */
  readonly rootDomains?: ReadonlySet<string> | undefined;
  /** Default `DEFAULT_MOUNTED_ROOT`. */
  readonly mountedRoot?: string | undefined;
  /** Directory of key.pem, cert-chain.pem and root-cert.pem to present to the CA (PROV_CERT). */
  readonly provisioningDir?: string | undefined;
  /** Default `DEFAULT_TOKEN`. A missing file is no fault where there is a certificate to present. */
  readonly tokenPath?: string | undefined;
  /** Whom the token should be for; another audience is told, not refused. Default `istio-ca`. */
  readonly tokenAudiences?: readonly string[] | undefined;
  /** ISTIO_META_CLUSTER_ID; default empty. */
  readonly clusterId?: string | undefined;
  /** ISTIO_META_CERT_SIGNER; default empty. */
  readonly certSigner?: string | undefined;
  /** CA_HEADER_*: sent with every call. */
  readonly headers?: ReadonlyMap<string, string> | undefined;
  /** Where learned roots are kept over restarts; nowhere without it. */
  readonly stateDir?: string | undefined;
  /** The certificate in service, for a server that takes it in place of a token; undefined while there is none. */
  readonly ownCertificate?: (() => ClientCertificate | undefined) | undefined;
  /**
   * Lends a connection that is shared with others who ask the same CA. It is for calls without a client certificate, whose token travels
   * with the call; default one of our own.
   */
  readonly lendChannel?: ((options: ChannelOptions) => Promise<Lease<CaChannel>>) | undefined;
}

/** Where Istio's injector mounts them. */
export const DEFAULT_MOUNTED_ROOT = './var/run/secrets/istio/root-cert.pem';
export const DEFAULT_TOKEN = './var/run/secrets/tokens/istio-token';
/** istiod's port without TLS. */
const PLAINTEXT_PORT = 15_010;

/** The options, checked and complete. */
export interface IstioCaSettings extends IstioCaOptions {
  readonly where: HostPort;
  readonly plaintext: boolean;
  readonly serverName: string;
  readonly rootSource: CaRootSource;
  readonly mountedRoot: string;
  readonly tokenPath: string;
  readonly tokenAudiences: readonly string[];
  readonly clusterId: string;
  readonly certSigner: string;
  readonly headers: ReadonlyMap<string, string>;
}

/** @throws AgentError ERR_CONFIG: an address that is none, or is without TLS; a header that cannot be one, or is not the user's to set. */
export function checkIstioOptions(options: IstioCaOptions): IstioCaSettings {
  const where = parseHostPort(options.address, 'ca-address');
  const plaintext = where.port === PLAINTEXT_PORT;
  if (plaintext && options.allowPlaintext !== true) {
    throw invalid(
      'ERR_CONFIG',
      'ca-address',
      `port ${PLAINTEXT_PORT} is without TLS: the token would be sent in plaintext`,
      {
        hint: 'use port 15012',
      },
    );
  }
  const mountedRoot = options.mountedRoot ?? DEFAULT_MOUNTED_ROOT;
  return {
    ...options,
    where,
    plaintext,
    serverName: options.serverName ?? where.host,
    rootSource: caRootSource(options.caRoot, options.provisioningDir, mountedRoot),
    mountedRoot,
    tokenPath: options.tokenPath ?? DEFAULT_TOKEN,
    tokenAudiences: options.tokenAudiences ?? [ISTIO_AUDIENCE],
    clusterId: headerValue('cluster id', options.clusterId ?? ''),
    certSigner: options.certSigner ?? '',
    headers: checkHeaders(options.headers ?? new Map()),
  };
}

/** Ours, and gRPC's own (its specification reserves names that begin with `grpc-`). */
const RESERVED =
  /^(authorization|clusterid|te|user-agent|content-type|host|connection|grpc-.*|.*-bin)$/;

function checkHeaders(headers: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  return new Map(
    [...headers].map(([name, value]) => {
      const header = name.toLowerCase();
      const field = `CA header ${name}`;
      if (!/^[a-z0-9_.-]{1,100}$/.test(header))
        throw invalid('ERR_CONFIG', field, 'must be of letters, digits, "-", "_" and "."');
      if (RESERVED.test(header)) throw invalid('ERR_CONFIG', field, 'is reserved');
      return [header, headerValue(field, value)];
    }),
  );
}

function headerValue(field: string, value: string): string {
  if (!/^[ -~]{0,8192}$/.test(value))
    throw invalid('ERR_CONFIG', field, 'must be printable ASCII of up to 8192 characters');
  return value;
}
