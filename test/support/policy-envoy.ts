import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { certificatesPem } from '../../agent/identity/certificate';
import { ISTIO_ALPN } from '../../agent/policy/evaluate/chain';
import type { PolicyRequest } from '../../agent/policy/evaluate/request';
import { objectOf } from '../../agent/policy/resources/fields';
import type { Json, JsonObject } from '../../agent/policy/resources/resource';
import { staticBootstrap } from '../../agent/policy/static-bootstrap';
import { startEnvoy } from './envoy';
import { clientPair, liveCa, type PemPair } from './tls-ca';

/** What an Envoy answered: the body is `%RESPONSE_CODE_DETAILS%`. Undefined where it closed the connection. */
export interface EnvoyAnswer {
  readonly status: number | undefined;
  readonly details: string;
}

export interface PolicyEnvoy {
  /** Fires a request at its `localIp` and `port`. */
  ask(request: PolicyRequest): Promise<EnvoyAnswer>;
  stop(): Promise<void>;
}

/**
 * A real Envoy with compiled listeners: behind the guards every request is answered with 200, and what is sent
 * on a connection comes back.
 *
 * @param listeners  Their names and addresses are unique, the addresses of the loopback.
 */
export async function startPolicyEnvoy(
  dir: string,
  listeners: readonly JsonObject[],
): Promise<PolicyEnvoy> {
  const ca = await liveCa();
  const server = clientPair(ca, 'spiffe://td1/ns/shop/sa/server');
  const inline = (bytes: Uint8Array) => ({ inlineString: Buffer.from(bytes).toString() });
  const changed = listeners.map((each) => objectOf(answering(each)));
  const bootstrap = staticBootstrap({ listeners: changed, clusters: [], secretNames: [] });
  const config = {
    ...bootstrap,
    admin: { address: { socketAddress: { address: '127.0.0.1', portValue: 0 } } },
    staticResources: {
      ...objectOf(bootstrap.staticResources),
      secrets: [
        {
          name: 'default',
          tlsCertificate: {
            certificateChain: inline(server.chainPem),
            privateKey: inline(server.keyPem),
          },
        },
        {
          name: 'ROOTCA',
          validationContext: { trustedCa: inline(certificatesPem(ca.bundle.rootsDer)) },
        },
      ],
    },
  };
  const envoy = await startEnvoy({ dir, name: 'policy', config });
  await envoy.started();
  const pairs = new Map<string, PemPair>();
  const pairOf = (uri: string) => {
    const pair = pairs.get(uri) ?? clientPair(ca, uri);
    pairs.set(uri, pair);
    return pair;
  };
  return {
    stop: () => envoy.stop(),
    ask: (request) => fire(request, request.from === undefined ? undefined : pairOf(request.from)),
  };
}

const DIRECT = {
  virtualHosts: [
    {
      name: 'all',
      domains: ['*'],
      routes: [{ match: { prefix: '/' }, directResponse: { status: 200 } }],
    },
  ],
};
const ECHO = {
  name: 'envoy.filters.network.echo',
  typedConfig: { '@type': 'type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo' },
};

/** Takes secrets from the bootstrap, and answers in place of the application. */
function answering(value: Json): Json {
  if (Array.isArray(value)) return value.map(answering);
  if (typeof value !== 'object' || value === null) return value;
  const fields = Object.fromEntries(
    Object.entries(value as JsonObject)
      .filter(([key]) => key !== 'sdsConfig')
      .map(([key, each]) => [key, answering(each)]),
  );
  if (String(fields['@type']).endsWith('.ExtAuthz')) return { ...fields, failureModeAllow: false };
  if (fields.name === 'envoy.filters.network.tcp_proxy') return ECHO;
  if ('routeConfig' in fields)
    return {
      ...fields,
      routeConfig: DIRECT,
      localReplyConfig: {
        bodyFormat: { textFormatSource: { inlineString: '%RESPONSE_CODE_DETAILS%' } },
      },
    };
  if ('filterChains' in fields)
    return { ...fields, statPrefix: String(fields.name).replace(/[^\w]/g, '_') };
  return fields;
}

/** Of what Envoy never answers: a connection that it leaves open. */
const SILENCE_MS = 10_000;

async function fire(request: PolicyRequest, pair: PemPair | undefined): Promise<EnvoyAnswer> {
  const { method, path, host, headers } = request;
  const tcp = connectTcp({
    port: request.port,
    host: request.localIp!,
    localAddress: request.ip!,
  });
  const socket: Socket = pair
    ? connectTls({
        socket: tcp,
        key: pair.keyPem,
        cert: pair.chainPem,
        rejectUnauthorized: false,
        ALPNProtocols: [...ISTIO_ALPN],
        ...(request.serverName !== '' && { servername: request.serverName }),
      })
    : tcp;
  const lines = [
    `${method} ${path} HTTP/1.1`,
    `Host: ${host}`,
    ...headers.map(([name, value]) => `${name}: ${value}`),
    'Connection: close',
  ];
  socket.write(`${lines.join('\r\n')}\r\n\r\n`);
  const text = await new Promise<string>((done, failed) => {
    let all = '';
    const silent = setTimeout(() => failed(new Error(`no answer: ${all}`)), SILENCE_MS);
    const end = () => {
      clearTimeout(silent);
      done(all);
    };
    socket.setEncoding('latin1').on('data', (part: string) => {
      all += part;
      // An echo of what was sent: the connection was let in. Envoy leaves others open for a second.
      const isEcho = all.startsWith(`${method} `) && all.endsWith('\r\n\r\n');
      const [, length, body] = /\ncontent-length: (\d+)\r\n.*?\r\n\r\n(.*)$/s.exec(all) ?? [];
      if (isEcho || Number(length) === body?.length) end();
    });
    for (const each of [socket, tcp])
      for (const event of ['end', 'error', 'close']) each.on(event, end);
  });
  socket.destroy();
  tcp.destroy();
  if (text.startsWith(`${method} `)) return { status: 200, details: 'echo' };
  const [, status, body] = /^HTTP\/1\.1 (\d+) .*?\r\n\r\n(.*)$/s.exec(text) ?? [];
  return { status: status === undefined ? undefined : Number(status), details: body ?? '' };
}
