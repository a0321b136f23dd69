import { isObject, objectOf, objectsOf, textOf, textsOf } from '../resources/fields';
import type { FieldPath, Json, JsonObject } from '../resources/resource';
import type { Check } from './check';
import {
  checkPortName,
  checkProtocol,
  isAddress,
  isDnsLabel,
  isHostName,
  isUnixAddress,
  isWildcardHost,
} from './names';

/** @see istio pkg/config/validation ValidateSidecar */
export function checkSidecar(check: Check): void {
  const { spec } = check.resource;
  check.labels(objectOf(spec.workloadSelector).labels, ['spec', 'workloadSelector', 'labels']);
  const isEmpty =
    objectsOf(spec.ingress).length + objectsOf(spec.egress).length === 0 &&
    !isObject(spec.outboundTrafficPolicy) &&
    !isObject(spec.inboundConnectionPool);
  if (isEmpty) check.refuse(['spec'], 'must not be empty', 'add ingress with a port');
  const seen = new Set<Json | undefined>();
  for (const { item, at } of check.each(spec.ingress, ['spec', 'ingress'])) {
    checkIngress(check, item, at);
    const { number } = objectOf(item.port);
    if (number !== undefined && seen.has(number))
      check.refuse([...at, 'port', 'number'], 'is the port of another listener');
    seen.add(number);
  }
  checkEgress(check);
  checkOutbound(check, objectOf(spec.outboundTrafficPolicy));
}

function checkIngress(check: Check, item: JsonObject, at: FieldPath): void {
  const port = objectOf(item.port);
  const path = [...at, 'port'];
  check.port(port.number, [...path, 'number']);
  checkPort(check, port, path);
  const bind = textOf(item.bind);
  if (bind !== undefined && !isAddress(bind)) check.refuse([...at, 'bind'], 'must be an address');
  checkEndpoint(check, textOf(item.defaultEndpoint), [...at, 'defaultEndpoint']);
  if (isObject(item.tls)) checkTls(check, item.tls, port, [...at, 'tls']);
}

function checkPort(check: Check, port: JsonObject, at: FieldPath): void {
  if (textOf(port.name) !== undefined) checkPortName(check, port.name, [...at, 'name']);
  checkProtocol(check, port.protocol, [...at, 'protocol']);
  if (Number(port.targetPort ?? 0) > 0)
    check.refuse([...at, 'targetPort'], 'has no effect in a Sidecar', 'remove it');
}

function checkEndpoint(check: Check, endpoint: string | undefined, at: FieldPath): void {
  if (endpoint === undefined || isUnixAddress(endpoint)) return;
  const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(endpoint) ?? [];
  if (!['127.0.0.1', '[::1]', '0.0.0.0', '[::]'].includes(host))
    check.refuse(at, 'must be 127.0.0.1:PORT, [::1]:PORT, 0.0.0.0:PORT, [::]:PORT or unix://PATH');
  else check.port(Number(port), at);
}

const UNSUPPORTED = [
  'subjectAltNames',
  'httpsRedirect',
  'credentialName',
  'credentialNames',
  'tlsCertificates',
];

/** TLS that the port ends for callers outside the mesh. */
function checkTls(check: Check, tls: JsonObject, port: JsonObject, at: FieldPath): void {
  for (const name of UNSUPPORTED) {
    const value = tls[name];
    const isSet = Array.isArray(value) ? value.length > 0 : Boolean(value);
    if (isSet) check.refuse([...at, name], 'must not stand in a Sidecar');
  }
  const mode = textOf(tls.mode) ?? 'PASSTHROUGH';
  if (mode === 'ISTIO_MUTUAL' || mode === 'AUTO_PASSTHROUGH')
    check.refuse([...at, 'mode'], `must not be ${mode} in a Sidecar`);
  if (!['https', 'tls'].includes((textOf(port.protocol) ?? '').toLowerCase()))
    check.refuse(at, 'needs a port whose protocol is HTTPS or TLS');
  const isMutual = mode === 'MUTUAL' || mode === 'OPTIONAL_MUTUAL';
  if (isMutual) check.needed(tls.caCertificates, [...at, 'caCertificates']);
  if (isMutual || mode === 'SIMPLE')
    for (const name of ['serverCertificate', 'privateKey']) check.needed(tls[name], [...at, name]);
  if (mode === 'SIMPLE' && textOf(tls.caCrl))
    check.refuse([...at, 'caCrl'], 'must not stand beside mode SIMPLE');
}

function checkEgress(check: Check): void {
  const items = check.each(check.resource.spec.egress, ['spec', 'egress']);
  const seen = new Set<string>();
  for (const [index, { item, at }] of items.entries()) {
    if (!isObject(item.port)) {
      if (index < items.length - 1)
        check.refuse(at, 'has no port, and must be the last of the list');
    } else checkEgressPort(check, item, at, seen);
    if (textsOf(item.hosts).length === 0)
      check.refuse([...at, 'hosts'], 'must have at least one host');
    for (const [position, host] of textsOf(item.hosts).entries())
      if (!isEgressHost(host))
        check.refuse(
          [...at, 'hosts', position],
          'must be NAMESPACE/HOST, such as ./* or */*.example.com',
        );
  }
}

function checkEgressPort(check: Check, item: JsonObject, at: FieldPath, seen: Set<string>): void {
  const port = objectOf(item.port);
  const bind = textOf(item.bind) ?? '';
  checkPort(check, port, [...at, 'port']);
  const isSocket = Number(port.number ?? 0) === 0;
  if (!isSocket) check.port(port.number, [...at, 'port', 'number']);
  if (isSocket && !isUnixAddress(bind))
    check.refuse([...at, 'bind'], 'must be unix://PATH where the port is 0');
  if (!isSocket && bind !== '' && !isAddress(bind))
    check.refuse([...at, 'bind'], 'must be an address');
  if (isSocket && item.captureMode === 'IPTABLES')
    check.refuse([...at, 'captureMode'], 'must be DEFAULT or NONE for a socket');
  const key = isSocket ? bind : String(port.number);
  if (seen.has(key)) check.refuse([...at, 'port'], 'is the port of another listener');
  seen.add(key);
}

function isEgressHost(text: string): boolean {
  const [namespace = '', host = '', ...rest] = text.split('/');
  const name = namespace.replace(/^~/, '');
  const isNamespace =
    namespace !== '' && (name === '' || name === '*' || name === '.' || isDnsLabel(name));
  const isHost =
    host === '*' || (host.includes('.') && isWildcardHost(host) && !/^\*[^.]/.test(host));
  return rest.length === 0 && isNamespace && isHost;
}

function checkOutbound(check: Check, policy: JsonObject): void {
  const at = ['spec', 'outboundTrafficPolicy'];
  if (!isObject(policy.egressProxy)) return;
  const path = [...at, 'egressProxy'];
  const { host, port } = policy.egressProxy;
  if (policy.mode !== 'ALLOW_ANY') check.refuse(path, 'needs mode ALLOW_ANY');
  if (typeof host !== 'string' || !isHostName(host))
    check.refuse([...path, 'host'], 'must be a host name');
  check.port(objectOf(port).number, [...path, 'port', 'number']);
}
