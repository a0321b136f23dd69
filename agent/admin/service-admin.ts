import type { Deps } from '../base/deps';
import type { AgentError } from '../base/errors';
import type { Health } from '../base/health';
import { parseHostPort } from '../base/host-port';
import {
  type HttpAnswer,
  type HttpServer,
  plainAnswer,
  readyAnswer,
  serveHttp,
} from '../base/http-server';
import { onceATurn } from '../base/once-a-turn';
import type { Gauge } from './gauges';
import type { AgentMetrics } from './metrics';

/** A service of which one thing at a time can be wrong, as those who watch it see it. */
export interface ServiceAdminOptions {
  /** `host:port`; port 0 takes a free one. */
  readonly address: string;
  /** Why it does not do its work; undefined where it does. */
  problem(): AgentError | undefined;
  /** What is true now, as metrics. */
  gauges(): readonly Gauge[];
}

/**
 * Health and metrics of a service over HTTP: `/healthz/live`, `/healthz/ready` (503 with the reason), `/metrics`.
 *
 * @throws AgentError ERR_SOCKET when the address cannot be listened on.
 */
export function serveServiceAdmin(
  options: ServiceAdminOptions,
  deps: Pick<Deps, 'clock' | 'log'> & { readonly metrics: AgentMetrics },
): Promise<HttpServer> {
  const metrics = onceATurn(() => deps.metrics.textWith(options.gauges()));
  return serveHttp(
    {
      address: parseHostPort(options.address, '--admin-address'),
      purpose: 'health and metrics',
      flag: '--admin-address',
      route: (path) => routeOf(path, options, deps.metrics.contentType, metrics),
      failure: plainAnswer(500, 'internal error'),
    },
    deps,
  );
}

/** The same for the service manager that has started the process. */
export function serviceHealth(problem: ServiceAdminOptions['problem'], summary: string): Health {
  return {
    summary: () => problem()?.message ?? summary,
    stalled: () => undefined,
    onChange: () => () => undefined,
  };
}

function routeOf(
  path: string,
  { problem }: ServiceAdminOptions,
  type: string,
  metrics: () => Promise<string>,
): (() => HttpAnswer | Promise<HttpAnswer>) | undefined {
  switch (path) {
    case '/healthz/live':
      return () => plainAnswer(200, 'live');
    case '/healthz/ready': {
      const found = problem();
      return () => readyAnswer(found ? [found.message] : []);
    }
    case '/metrics':
      return async () => ({ status: 200, type, body: await metrics() });
    default:
      return undefined;
  }
}
