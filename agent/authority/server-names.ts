import { invalid } from '../base/errors';
import type { HostPort } from '../base/host-port';
import { ipOctets } from '../base/ip-address';
import type { ServerNames } from './certificate-specs';

/**
 * What the certificate of a server is for: the names that were given, and the address that it listens on unless that is any.
 *
 * @throws AgentError ERR_CONFIG naming --server-names.
 */
export function serverNamesOf({ host }: HostPort, serverNames: readonly string[]): ServerNames {
  const given = [...serverNames, ...(['0.0.0.0', '::'].includes(host) ? [] : [host])];
  const all = [...new Set(given.map((name) => name.split('%', 1)[0]!))];
  if (all.length === 0) {
    throw invalid(
      'ERR_CONFIG',
      '--server-names',
      'must name the hosts that clients call the server, since --listen does not',
    );
  }
  for (const name of all) {
    if (name.length > 253 || !/^[A-Za-z0-9*]([A-Za-z0-9._:-]*)$/.test(name)) {
      throw invalid(
        'ERR_CONFIG',
        '--server-names',
        `must be host names and addresses, not "${name.slice(0, 100)}"`,
      );
    }
  }
  return { dns: all.filter((name) => !ipOctets(name)), ip: all.filter((name) => ipOctets(name)) };
}
