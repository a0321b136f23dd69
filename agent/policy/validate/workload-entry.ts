import { isObject, textOf } from '../resources/fields';
import type { FieldPath, JsonObject } from '../resources/resource';
import type { Check } from './check';
import { checkLabels, checkPortName, isAddress, isHostName, isUnixAddress } from './names';

/** @see istio pkg/config/validation ValidateWorkloadEntry */
export function checkWorkloadEntry(check: Check): void {
  checkEndpoint(check, check.resource.spec, ['spec'], { hosts: true });
}

/**
 * An endpoint, of its own or of a ServiceEntry.
 *
 * @param allowed  Whether its address may be a host name, and which names of ports there are.
 */
export function checkEndpoint(
  check: Check,
  entry: JsonObject,
  at: FieldPath,
  allowed: { readonly hosts: boolean; readonly ports?: readonly string[] },
): void {
  const address = textOf(entry.address) ?? '';
  const ports = Object.entries(isObject(entry.ports) ? entry.ports : {});
  const path = [...at, 'address'];
  if (address === '') {
    // One on another network is reached through that network's gateway.
    if (!textOf(entry.network)) check.needed(address, path);
  } else if (address.startsWith('unix://')) {
    if (!isUnixAddress(address)) check.refuse(path, 'must be unix:// and an absolute path');
    if (ports.length > 0) check.refuse([...at, 'ports'], 'must not stand beside a socket');
    if (allowed.ports && allowed.ports.length !== 1)
      check.refuse(path, 'needs a ServiceEntry of exactly one port');
  } else if (!isAddress(address) && !(allowed.hosts && isHostName(address)))
    check.refuse(path, `must be an address${allowed.hosts ? ' or a host name' : ''}`);
  for (const [name, port] of ports) {
    const where = [...at, 'ports', name];
    checkPortName(check, name, where);
    check.port(port, where);
    if (allowed.ports && !allowed.ports.includes(name))
      check.refuse(where, 'is no port of the ServiceEntry', `known: ${allowed.ports.join(', ')}`);
  }
  if (Number(entry.weight ?? 0) < 0) check.refuse([...at, 'weight'], 'must not be negative');
  checkLabels(check, entry.labels, [...at, 'labels']);
}
