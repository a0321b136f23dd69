import { cidrRange } from '../authz/cidr';
import { isObject, objectOf, objectsOf, textOf, textsOf } from '../resources/fields';
import type { Json } from '../resources/resource';
import type { Check } from './check';
import { checkExportTo, checkPortName, checkProtocol, isHostName, isWildcardHost } from './names';
import { checkEndpoint } from './workload-entry';

/** @see istio pkg/config/validation ValidateServiceEntry */
export function checkServiceEntry(check: Check): void {
  const { spec } = check.resource;
  check.labels(objectOf(spec.workloadSelector).labels, ['spec', 'workloadSelector', 'labels']);
  if (isObject(spec.workloadSelector) && objectsOf(spec.endpoints).length > 0)
    check.refuse(['spec', 'endpoints'], 'must not stand beside workloadSelector');
  checkHosts(check);
  checkAddresses(check);
  checkPorts(check);
  checkEndpoints(check);
  checkExportTo(check, spec.exportTo, { nobody: true });
}

function resolutionOf({ resource }: Check): string {
  return textOf(resource.spec.resolution) ?? 'NONE';
}

function checkHosts(check: Check): void {
  const { hosts, endpoints } = check.resource.spec;
  const resolution = resolutionOf(check);
  const isDns = resolution === 'DNS' || resolution === 'DNS_ROUND_ROBIN';
  if (textsOf(hosts).length === 0) check.refuse(['spec', 'hosts'], 'must have at least one host');
  for (const [index, host] of textsOf(hosts).entries()) {
    const path = ['spec', 'hosts', index];
    if (host === '*' || !isWildcardHost(host)) check.refuse(path, 'must be a host name');
    else if (resolution === 'DYNAMIC_DNS' && !host.startsWith('*'))
      check.refuse(path, 'must begin with * for resolution DYNAMIC_DNS');
    else if (isDns && objectsOf(endpoints).length === 0 && !isHostName(host))
      check.refuse(path, `must not have a wildcard for resolution ${resolution} without endpoints`);
  }
}

function checkAddresses(check: Check): void {
  const { addresses } = check.resource.spec;
  const resolution = resolutionOf(check);
  if (resolution === 'DYNAMIC_DNS' && textsOf(addresses).length > 0)
    check.refuse(['spec', 'addresses'], 'must not stand beside resolution DYNAMIC_DNS');
  for (const [index, address] of textsOf(addresses).entries()) {
    const path = ['spec', 'addresses', index];
    if (!cidrRange(address)) check.refuse(path, 'must be an address or a CIDR block');
    else if (address.includes('/') && resolution.includes('DNS'))
      check.refuse(path, `must not be a CIDR block for resolution ${resolution}`);
  }
}

const DYNAMIC_PROTOCOLS = ['http', 'tls', 'grpc', 'http2'];
const HTTP_OR_TLS = ['http', 'http2', 'grpc', 'grpc-web', 'http_proxy', 'https', 'tls'];

function checkPorts(check: Check): void {
  const { ports, hosts } = check.resource.spec;
  const resolution = resolutionOf(check);
  const names = new Set<Json | undefined>();
  const numbers = new Set<Json | undefined>();
  for (const { item, at } of check.each(ports, ['spec', 'ports'])) {
    check.port(item.number, [...at, 'number']);
    checkPortName(check, item.name, [...at, 'name']);
    checkProtocol(check, item.protocol, [...at, 'protocol']);
    if (Number(item.targetPort ?? 0) !== 0) check.port(item.targetPort, [...at, 'targetPort']);
    if (names.has(item.name)) check.refuse([...at, 'name'], 'is the name of another port');
    if (numbers.has(item.number)) check.refuse([...at, 'number'], 'is the number of another port');
    names.add(item.name);
    numbers.add(item.number);
    const protocol = (textOf(item.protocol) ?? '').toLowerCase();
    if (resolution === 'DYNAMIC_DNS' && !DYNAMIC_PROTOCOLS.includes(protocol))
      check.refuse(
        [...at, 'protocol'],
        'must be HTTP, HTTP2, GRPC or TLS for resolution DYNAMIC_DNS',
      );
    if (resolution !== 'NONE' && textsOf(hosts).length > 1 && !HTTP_OR_TLS.includes(protocol))
      check.refuse([...at, 'protocol'], 'must be of HTTP or TLS where there are several hosts');
  }
}

function checkEndpoints(check: Check): void {
  const { endpoints, ports } = check.resource.spec;
  const resolution = resolutionOf(check);
  const all = check.each(endpoints, ['spec', 'endpoints']);
  const path = ['spec', 'endpoints'];
  if (all.length > 0 && (resolution === 'NONE' || resolution === 'DYNAMIC_DNS'))
    return void check.refuse(path, `must not stand beside resolution ${resolution}`);
  if (all.length > 1 && resolution === 'DNS_ROUND_ROBIN')
    check.refuse(path, 'must be at most one for resolution DNS_ROUND_ROBIN');
  const names = objectsOf(ports).map(({ name }) => String(name ?? ''));
  for (const { item, at } of all)
    if (resolution !== 'STATIC' && /^unix:|^$/.test(textOf(item.address) ?? ''))
      check.refuse([...at, 'address'], 'must be an address or a host name');
    else checkEndpoint(check, item, at, { hosts: resolution !== 'STATIC', ports: names });
}
