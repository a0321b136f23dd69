import { objectOf, objectsOf, textOf, textsOf } from '../resources/fields';
import type { JsonObject } from '../resources/resource';
import { isInRange } from './address';
import { matchesText, uninterpretable } from './match';

/** A connection, before a filter chain is chosen. */
export interface Connection {
  /** URIs of the client's certificate; undefined where the client speaks plain text. */
  readonly peer: readonly string[] | undefined;
  readonly port: number;
  readonly directIp: string | undefined;
  readonly localIp: string | undefined;
  /** SNI, empty where there is none. */
  readonly serverName: string;
  /** ALPN of a client with TLS. */
  readonly alpn: readonly string[];
}

/** What Istio's proxies offer, in the order of an HTTP client. */
export const ISTIO_ALPN = ['istio-http/1.1', 'istio', 'http/1.1'];

export type ChosenChain = { readonly chain: JsonObject } | { readonly reason: string };

/**
 * The filter chain that takes a connection, or why none does.
 *
 * @see Envoy, `envoy.config.listener.v3.FilterChainMatch`: from the port to the application protocol, and each time the most
 * specific criterion that anything has
 */
export function chooseChain(listener: JsonObject, connection: Connection): ChosenChain {
  const chains = objectsOf(listener.filterChains);
  let left = chains.map((chain) => ({ chain, match: objectOf(chain.filterChainMatch) }));
  for (const criterion of CRITERIA) {
    const scores = left.map(({ match }) => criterion(match, connection));
    const best = Math.max(...scores);
    left = best < 0 ? [] : left.filter((_, index) => scores[index] === best);
  }
  const chain = left[0]?.chain ?? defaultChain(listener);
  if (!chain)
    return {
      reason: connection.peer
        ? 'no filter chain takes mutual TLS with this ALPN'
        : 'no filter chain takes plain text',
    };
  const refusal = handshakeProblem(chain, connection);
  return refusal === undefined ? { chain } : { reason: refusal };
}

function defaultChain({ defaultFilterChain }: JsonObject): JsonObject | undefined {
  return defaultFilterChain === undefined ? undefined : objectOf(defaultFilterChain);
}

/** How well a match fits: negative where it does not, more the more it says. */
type Criterion = (match: JsonObject, connection: Connection) => number;

const CRITERIA: readonly Criterion[] = [
  ({ destinationPort }, { port }) =>
    destinationPort === undefined ? 0 : destinationPort === port ? 1 : -1,
  ({ prefixRanges }, { localIp }) => longest(prefixRanges, localIp),
  ({ serverNames }, { serverName }) => byServerName(textsOf(serverNames), serverName),
  ({ transportProtocol }, { peer }) => {
    const wanted = textOf(transportProtocol);
    return wanted === undefined ? 0 : wanted === (peer ? 'tls' : 'raw_buffer') ? 1 : -1;
  },
  ({ applicationProtocols }, { alpn, peer }) => {
    const wanted = textsOf(applicationProtocols);
    // Without TLS it is what the HTTP inspector has seen.
    const offered = peer ? alpn : ['http/1.1'];
    return wanted.length === 0 ? 0 : wanted.some((each) => offered.includes(each)) ? 1 : -1;
  },
  ({ directSourcePrefixRanges }, { directIp }) => longest(directSourcePrefixRanges, directIp),
  ({ sourceType }, { directIp }) => {
    if (sourceType === undefined || sourceType === 'ANY') return 0;
    if (directIp === undefined)
      throw uninterpretable('a filter chain by source without an address');
    const isLocal = directIp === '::1' || directIp.startsWith('127.');
    return (sourceType === 'SAME_IP_OR_LOOPBACK') === isLocal ? 1 : -1;
  },
  ({ sourcePrefixRanges }, { directIp }) => longest(sourcePrefixRanges, directIp),
  ({ sourcePorts }) => (Array.isArray(sourcePorts) && sourcePorts.length > 0 ? -1 : 0),
];

function longest(ranges: JsonObject[string] | undefined, address: string | undefined): number {
  const all = objectsOf(ranges);
  if (all.length === 0) return 0;
  const fitting = all.filter((each) => isInRange(address, each));
  return fitting.length === 0
    ? -1
    : 1 + Math.max(...fitting.map((each) => Number(each.prefixLen ?? 0)));
}

function byServerName(names: readonly string[], name: string): number {
  if (names.length === 0) return 0;
  const fits = names.filter((each) =>
    each.startsWith('*.') ? name.endsWith(each.slice(1)) : each === name.toLowerCase(),
  );
  return fits.length === 0
    ? -1
    : Math.max(...fits.map((each) => each.length + (each.startsWith('*') ? 0 : 256)));
}

/** Why a handshake with the peer fails: its names are none that the chain takes. */
function handshakeProblem(chain: JsonObject, { peer }: Connection): string | undefined {
  if (chain.transportSocket === undefined) return undefined;
  const tls = objectOf(objectOf(chain.transportSocket).typedConfig);
  if (!String(tls['@type']).endsWith('.DownstreamTlsContext')) return undefined;
  if (!peer) return 'the port takes TLS only';
  const common = objectOf(tls.commonTlsContext);
  const combined = objectOf(objectOf(common.combinedValidationContext).defaultValidationContext);
  const context =
    common.validationContext === undefined ? combined : objectOf(common.validationContext);
  const typed = objectsOf(context.matchTypedSubjectAltNames).map(({ matcher }) =>
    objectOf(matcher),
  );
  const wanted = [...typed, ...objectsOf(context.matchSubjectAltNames)];
  if (wanted.length === 0 || peer.some((name) => wanted.some((each) => matchesText(each, name))))
    return undefined;
  return `the handshake is refused: ${peer.join(', ')} is of no trust domain of the port`;
}
