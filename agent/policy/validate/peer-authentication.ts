import { isObject, objectOf } from '../resources/fields';
import { type Check, MAX_PORT } from './check';

/** @see istio pkg/config/validation ValidatePeerAuthentication */
export function checkPeerAuthentication(check: Check): void {
  const { selector, portLevelMtls } = check.resource.spec;
  const { matchLabels } = objectOf(selector);
  check.labels(matchLabels, ['spec', 'selector', 'matchLabels']);
  if (!isObject(portLevelMtls)) return;
  const path = ['spec', 'portLevelMtls'];
  const ports = Object.keys(portLevelMtls);
  if (Object.keys(objectOf(matchLabels)).length === 0 && ports.length > 0)
    check.refuse(path, 'needs a selector', 'add spec.selector.matchLabels');
  if (ports.length === 0) check.refuse(path, 'must have at least one port', 'remove it');
  for (const port of ports)
    if (!/^[1-9]\d{0,4}$/.test(port) || Number(port) > MAX_PORT)
      check.refuse([...path, port], `must be a port, 1 to ${MAX_PORT}`);
}
