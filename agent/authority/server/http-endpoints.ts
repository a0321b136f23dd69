import type { Deps } from '../../base/deps';
import type { HostPort } from '../../base/host-port';
import {
  type HttpAnswer,
  type HttpServer,
  plainAnswer,
  readyAnswer,
  serveHttp,
} from '../../base/http-server';
import type { Watched } from '../../base/watched';
import { certificatesPem } from '../../identity/certificate';
import { formatSpiffeBundle, type JwtKey } from '../../identity/spiffe-bundle';
import type { TrustBundle } from '../../identity/trust-bundle';
import { rootsToHandOut } from '../../identity/valid-now';
import type { PublishedCrls } from '../crl';

export interface HttpEndpointsOptions {
  readonly address: HostPort;
  readonly trust: Watched<TrustBundle>;
  /** What JWT-SVIDs are verified by at the moment. */
  readonly jwtKeys: () => Promise<readonly JwtKey[]>;
  /** The signed CRLs of this moment; undefined where none are offered. */
  readonly crl: (() => Promise<PublishedCrls>) | undefined;
  /** Metrics in Prometheus' text format. */
  readonly metrics:
    | (() => Promise<{ readonly contentType: string; readonly body: string }>)
    | undefined;
  /** Why no certificate can be issued now, one sentence each; empty where it can. */
  reasons(): readonly string[];
}

/**
 * What of a CA is for everybody, over plain HTTP, since all of it is public or signed: `/bundle.pem`, the roots as `rootsToHandOut` has them;
 * `/bundle.json`, the same with the keys of JWT-SVIDs as a SPIFFE bundle; `/crl` and `/crl.pem`, the
 * lists of all signers, and `/crl.der`, that of the one in use; `/healthz/ready` (200 where it can sign, else 503 with a line for each
 * reason), `/healthz/live`, `/metrics`. Read only.
 *
 * A bundle fetched from here is as good as the way that it came: whoever has no root yet must get the first one otherwise.
 *
 * @throws AgentError ERR_SOCKET.
 */
export function serveHttpEndpoints(
  options: HttpEndpointsOptions,
  deps: Pick<Deps, 'clock' | 'log'>,
): Promise<HttpServer> {
  return serveHttp(
    {
      address: options.address,
      purpose: 'health, bundle and CRL',
      flag: '--admin-address',
      route: (path) => routeOf(path, options, deps),
      failure: plainAnswer(503, 'not available now'),
    },
    deps,
  );
}

function routeOf(
  path: string,
  options: HttpEndpointsOptions,
  { clock }: Pick<Deps, 'clock'>,
): (() => HttpAnswer | Promise<HttpAnswer>) | undefined {
  const { crl, metrics } = options;
  const roots = () => rootsToHandOut(options.trust.value, clock.now());
  switch (path) {
    case '/bundle.pem':
      return () => pem(certificatesPem(roots().rootsDer));
    case '/bundle.json':
      return async () => ({
        status: 200,
        type: 'application/json',
        body: await spiffeBundle(roots(), options),
      });
    case '/crl':
    case '/crl.pem':
      return crl && (async () => pem((await crl()).pem));
    case '/crl.der':
      return (
        crl &&
        (async () => ({ status: 200, type: 'application/pkix-crl', body: (await crl()).der }))
      );
    case '/metrics':
      return (
        metrics &&
        (async () =>
          metrics().then(({ contentType, body }) => ({ status: 200, type: contentType, body })))
      );
    case '/healthz/live':
      return () => plainAnswer(200, 'live');
    case '/healthz/ready':
      return () => readyAnswer(options.reasons());
    default:
      return undefined;
  }
}

/** How often others should look: a key of tokens is told a day before it signs, and one that was taken away must not be believed for long. */
const REFRESH_SECONDS = 300;

async function spiffeBundle(
  roots: TrustBundle,
  { jwtKeys }: HttpEndpointsOptions,
): Promise<string> {
  return `${JSON.stringify(formatSpiffeBundle({ roots, jwtKeys: await jwtKeys(), refreshHintSeconds: REFRESH_SECONDS }))}\n`;
}

function pem(body: Uint8Array): HttpAnswer {
  return { status: 200, type: 'application/x-pem-file', body };
}
