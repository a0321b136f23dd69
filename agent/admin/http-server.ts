import type { IncomingMessage } from 'node:http';
import type { Deps } from '../base/deps';
import { parseHostPort } from '../base/host-port';
import {
  type HttpAnswer,
  type HttpServer,
  plainAnswer,
  readyAnswer,
  serveHttp,
} from '../base/http-server';
import { onceATurn } from '../base/once-a-turn';
import type { AgentView } from './agent-view';
import type { AgentMetrics } from './metrics';

export interface AdminServerOptions {
  /** `host:port`; port 0 takes a free one. */
  readonly address: string;
  /** Who chose it, for the log. */
  readonly origin: string;
  readonly view: AgentView;
  readonly metrics: AgentMetrics;
}

/**
 * Health and metrics over HTTP, for anybody who can reach the port: read only, nothing secret, nothing repeated of what was asked.
 *
 * `/healthz/ready` 200, or 503 with a line for each reason (JSON with `?verbose` or `accept: application/json`); `/healthz/live` 200 for as
 * long as the loop turns, whatever the CA does; `/metrics` and, for scrapers that were set up for Istio, `/stats/prometheus`.
 *
 * @throws AgentError ERR_SOCKET when the address cannot be listened on.
 */
export async function createAdminServer(
  options: AdminServerOptions,
  deps: Pick<Deps, 'clock' | 'log'>,
): Promise<HttpServer> {
  const metrics = onceATurn(() => options.metrics.text(options.view));
  const server = await serveHttp(
    {
      address: parseHostPort(options.address, '--admin-address'),
      purpose: 'health and metrics',
      flag: '--admin-address',
      rival: "Istio's agent has 15020: beside it, take 127.0.0.1:15022",
      route: (path, request) => routeOf(path, request, options, metrics),
      failure: plainAnswer(500, 'internal error'),
    },
    deps,
  );
  deps.log.info('admin server listening', { address: server.address, origin: options.origin });
  return server;
}

function routeOf(
  path: string,
  request: IncomingMessage,
  { view, metrics }: AdminServerOptions,
  text: () => Promise<string>,
) {
  switch (path) {
    case '/healthz/live':
      return () => plainAnswer(200, 'live');
    case '/healthz/ready':
      return () => (wantsJson(request) ? readyJson(view.reasons()) : readyAnswer(view.reasons()));
    case '/metrics':
    case '/stats/prometheus':
      return async () => ({ status: 200, type: metrics.contentType, body: await text() });
    default:
      return undefined;
  }
}

function wantsJson(request: IncomingMessage): boolean {
  return (
    /[?&]verbose(=|&|$)/.test(request.url ?? '') ||
    (request.headers.accept ?? '').includes('application/json')
  );
}

function readyJson(reasons: readonly string[]): HttpAnswer {
  const ready = reasons.length === 0;
  return {
    status: ready ? 200 : 503,
    type: 'application/json',
    body: `${JSON.stringify({ ready, reasons })}\n`,
  };
}
