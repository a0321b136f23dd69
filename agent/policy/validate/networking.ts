import { isIP } from 'node:net';
import { isObject, objectOf, textOf } from '../resources/fields';
import type { FieldPath, Json } from '../resources/resource';
import type { Check } from './check';

export function checkSidecar(check: Check): void {
  const { spec } = check.resource;
  check.labels(objectOf(spec.workloadSelector).labels, ['spec', 'workloadSelector', 'labels']);
  const seen = new Set<Json | undefined>();
  for (const { item, at } of check.each(spec.ingress, ['spec', 'ingress'])) {
    const { number } = objectOf(item.port);
    check.port(number, [...at, 'port', 'number']);
    if (seen.has(number))
      check.refuse([...at, 'port', 'number'], 'is the port of another listener');
    seen.add(number);
    const bind = textOf(item.bind);
    if (bind !== undefined && isIP(bind) === 0 && !bind.startsWith('unix://'))
      check.refuse([...at, 'bind'], 'must be an address or unix://PATH');
    checkEndpoint(check, textOf(item.defaultEndpoint), [...at, 'defaultEndpoint']);
  }
}

function checkEndpoint(check: Check, endpoint: string | undefined, at: FieldPath): void {
  if (endpoint === undefined || endpoint.startsWith('unix:///')) return;
  const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(endpoint) ?? [];
  if (!['127.0.0.1', '[::1]', '0.0.0.0', '[::]'].includes(host))
    check.refuse(at, 'must be 127.0.0.1:PORT, [::1]:PORT, 0.0.0.0:PORT, [::]:PORT or unix://PATH');
  else check.port(Number(port), at);
}

export function checkServiceEntry(check: Check): void {
  const { spec } = check.resource;
  if (check.texts(spec.hosts, ['spec', 'hosts']).length === 0)
    check.refuse(['spec', 'hosts'], 'must have at least one host');
  for (const { item, at } of check.each(spec.ports, ['spec', 'ports']))
    check.port(item.number, [...at, 'number']);
  for (const { item, at } of check.each(spec.endpoints, ['spec', 'endpoints']))
    check.labels(item.labels, [...at, 'labels']);
}

export function checkWorkloadEntry(check: Check): void {
  check.needed(check.resource.spec.address, ['spec', 'address']);
}

export function checkDestinationRule(check: Check): void {
  check.needed(check.resource.spec.host, ['spec', 'host']);
  const { trafficPolicy } = check.resource.spec;
  const at = ['spec', 'trafficPolicy'];
  checkTls(check, objectOf(trafficPolicy).tls, [...at, 'tls']);
  const levels = check.each(objectOf(trafficPolicy).portLevelSettings, [
    ...at,
    'portLevelSettings',
  ]);
  for (const { item, at: path } of levels) {
    check.port(objectOf(item.port).number, [...path, 'port', 'number']);
    checkTls(check, item.tls, [...path, 'tls']);
  }
}

function checkTls(check: Check, tls: Json | undefined, at: FieldPath): void {
  if (!isObject(tls) || tls.mode !== 'MUTUAL' || textOf(tls.credentialName)) return;
  for (const name of ['clientCertificate', 'privateKey']) check.needed(tls[name], [...at, name]);
}
