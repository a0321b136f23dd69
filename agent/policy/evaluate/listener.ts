import { objectOf, objectsOf, textOf, textsOf } from '../resources/fields';
import type { JsonObject } from '../resources/resource';
import type { Call } from './call';
import { evaluateRbac, type RbacVerdict } from './rbac';
import { matchesText } from './values';

/** What became of a call, in the order in which it met them. */
export interface Verdict {
  /** `ask` where an external authorizer decides. */
  readonly outcome: 'allow' | 'deny' | 'refused' | 'ask';
  /** What decided: the rule by its name, or the step. */
  readonly by: string;
  readonly steps: readonly Step[];
}

/** One guard and what it said. */
export interface Step {
  readonly guard: string;
  readonly says: string;
  readonly missed: RbacVerdict['missed'];
}

/** What peers of a mesh offer; a listener that takes both tells them from others by it. */
const ISTIO_ALPN = 'istio';

/**
 * The verdict of compiled listeners, or of an Envoy's.
 *
 * @param listeners  `envoy.config.listener.v3.Listener`, the guards in their places.
 * @throws           RangeError where something in them cannot be evaluated here.
 */
export function evaluateCall(listeners: readonly JsonObject[], call: Call): Verdict {
  const listener = listeners.find(({ address }) => portOf(address) === call.port);
  if (!listener) return refused('listener', `no listener has port ${call.port}`);
  const chain = objectsOf(listener.filterChains).find((each) => takes(each, call));
  if (!chain)
    return refused(
      'connection',
      call.peer === undefined
        ? 'plain text is not taken: the port wants mutual TLS'
        : 'mutual TLS is not taken: the port is plain text',
    );
  const stranger = call.peer === undefined ? undefined : strangerTo(chain, call.peer);
  if (stranger !== undefined) return refused('handshake', stranger);
  return guard(chain, call);
}

const portOf = (address: JsonObject[string] | undefined) =>
  objectOf(objectOf(address).socketAddress).portValue;

function refused(guard: string, says: string): Verdict {
  return { outcome: 'refused', by: guard, steps: [{ guard, says, missed: [] }] };
}

function takes({ filterChainMatch, transportSocket }: JsonObject, { peer }: Call): boolean {
  const match = objectOf(filterChainMatch);
  const transport = textOf(match.transportProtocol) ?? 'raw_buffer';
  if (peer === undefined) return transport === 'raw_buffer';
  const alpn = textsOf(match.applicationProtocols);
  return (
    transport === 'tls' &&
    transportSocket !== undefined &&
    (alpn.length === 0 || alpn.some((each) => each.startsWith(ISTIO_ALPN)))
  );
}

/** Why a peer's certificate is not taken; undefined where it is. */
function strangerTo({ transportSocket }: JsonObject, peer: string): string | undefined {
  const { commonTlsContext } = objectOf(objectOf(transportSocket).typedConfig);
  const { defaultValidationContext } = objectOf(
    objectOf(commonTlsContext).combinedValidationContext,
  );
  const context = objectOf(defaultValidationContext);
  const matchers = [
    ...objectsOf(context.matchTypedSubjectAltNames).map(({ matcher }) => objectOf(matcher)),
    ...objectsOf(context.matchSubjectAltNames),
  ];
  if (matchers.length === 0 || matchers.some((each) => matchesText(each, peer))) return undefined;
  return `${peer} is of no trust domain that is taken here`;
}

function guard(chain: JsonObject, call: Call): Verdict {
  const steps: Step[] = [];
  let recorded: string | undefined;
  // Envoy answers 400 before any filter of HTTP has seen it.
  if (call.request?.headers.get(':path')?.[0]?.includes('#'))
    return refused('path', 'a path with a fragment is answered with 400');
  for (const { filter, seen } of filtersOf(chain, call)) {
    const config = objectOf(filter.typedConfig);
    const type = String(config['@type']);
    if (type.endsWith('.rbac.v3.RBAC')) {
      const { shadowRules, rules } = config;
      if (shadowRules !== undefined && config.shadowRulesStatPrefix === 'istio_ext_authz_')
        recorded = evaluateRbac(objectOf(shadowRules), seen).matched ?? recorded;
      if (rules === undefined) continue;
      const verdict = evaluateRbac(objectOf(rules), seen);
      steps.push(stepOf(verdict));
      if (!verdict.passes)
        return { outcome: 'deny', by: verdict.matched ?? `no rule of ${verdict.action}`, steps };
    } else if (type.endsWith('.ext_authz.v3.ExtAuthz') && recorded !== undefined) {
      steps.push({ guard: 'CUSTOM', says: `${recorded}: its provider is asked`, missed: [] });
      return { outcome: 'ask', by: recorded, steps };
    }
  }
  const last = steps.findLast(({ guard: name }) => name === 'ALLOW');
  return { outcome: 'allow', by: last?.says ?? 'no policy of ALLOW', steps };
}

function stepOf({ action, matched, missed }: RbacVerdict): Step {
  return {
    guard: action === 'LOG' ? 'AUDIT' : action,
    says: matched ?? 'no rule matched',
    missed,
  };
}

interface SeenBy {
  readonly filter: JsonObject;
  /** As much of the call as the filter sees. */
  readonly seen: Call;
}

/** Network filters, which see a connection, then those inside the connection manager, which see its request. */
function filtersOf({ filters }: JsonObject, call: Call): readonly SeenBy[] {
  const connection = { ...call, request: undefined, remoteIp: call.directIp };
  return objectsOf(filters).flatMap((filter) => [
    { filter, seen: connection },
    ...objectsOf(objectOf(filter.typedConfig).httpFilters).map((each) => ({
      filter: each,
      seen: call,
    })),
  ]);
}
