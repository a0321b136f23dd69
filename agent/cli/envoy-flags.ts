import { type Command, Option } from 'commander';
import { invalid } from '../base/errors';
import { type HostPort, parseHostPort } from '../base/host-port';
import {
  type BootstrapOptions,
  VALIDATION_CONTEXTS,
  type ValidationContext,
} from '../envoy/bootstrap';
import { more } from './flag-values';

/** Names under which commander gives the flags of `addEnvoyFlags`. */
export const ENVOY_FLAGS = [
  'listen',
  'app',
  'caller',
  'peer',
  'peerId',
  'peerListen',
  'requestsPerConnection',
  'sessionResumption',
  'validationContext',
  'admin',
];

/** Adds the flags that say what an Envoy of ours listens for and calls. */
export function addEnvoyFlags(command: Command): Command {
  return command
    .option(
      '--listen <host:port>',
      'Where others call with mutual TLS (default 0.0.0.0:8443, unless only --peer is given)',
    )
    .option(
      '--app <host:port>',
      'Where the application listens, in plain HTTP (default 127.0.0.1:8080)',
    )
    .option(
      '--caller <id>',
      'SPIFFE ID that may call; may be given again (default: any of the trust domain)',
      more,
    )
    .option('--peer <host:port>', 'A peer to call with mutual TLS')
    .option(
      '--peer-id <id>',
      'SPIFFE ID that the peer must prove (default: any of the trust domain)',
    )
    .option(
      '--peer-listen <host:port>',
      'Where the application calls the peer, in plain HTTP',
      '127.0.0.1:9080',
    )
    .option(
      '--requests-per-connection <number>',
      'Close a connection to the peer after this many requests',
    )
    .option('--no-session-resumption', 'Make every TLS handshake a full one')
    .addOption(
      new Option(
        '--validation-context <name>',
        'Secret that verifies peers: our roots, or the bundle of each trust domain; peers of other trust domains need --caller or --peer-id (default ROOTCA)',
      ).choices(VALIDATION_CONTEXTS),
    )
    .option('--admin <host:port>', "Envoy's own admin interface", '127.0.0.1:15000');
}

/**
 * What those flags say.
 *
 * @param given  The parsed options of a command.
 * @throws       AgentError ERR_CONFIG | ERR_USAGE.
 */
export function readEnvoyFlags(
  given: Readonly<Record<string, unknown>>,
): Pick<
  BootstrapOptions,
  'admin' | 'inbound' | 'outbound' | 'sessionResumption' | 'validationContext'
> {
  const address = (name: string, flag: string, fallback?: string): HostPort | undefined => {
    const text = given[name] ?? fallback;
    return text === undefined ? undefined : parseHostPort(String(text), `flag --${flag}`);
  };
  const peer = address('peer', 'peer');
  const inbound = given.listen !== undefined || given.app !== undefined || peer === undefined;
  const callers = given.caller as string[] | undefined;
  return {
    admin: address('admin', 'admin')!,
    sessionResumption: given.sessionResumption !== false,
    ...(given.validationContext !== undefined && {
      validationContext: given.validationContext as ValidationContext,
    }),
    ...(inbound && {
      inbound: {
        listen: address('listen', 'listen', '0.0.0.0:8443')!,
        upstream: address('app', 'app', '127.0.0.1:8080')!,
        ...(callers && { callers }),
      },
    }),
    ...(peer && {
      outbound: {
        listen: address('peerListen', 'peer-listen')!,
        peer,
        ...(given.peerId !== undefined && { peerId: String(given.peerId) }),
        ...(given.requestsPerConnection !== undefined && {
          requestsPerConnection: wholeNumber(String(given.requestsPerConnection)),
        }),
      },
    }),
  };
}

function wholeNumber(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw invalid('ERR_USAGE', 'flag --requests-per-connection', 'must be a whole number from 1');
  return Number(text);
}
