import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { invalid } from '../base/errors';
import { type HostPort, parseHostPort } from '../base/host-port';
import { type CommandContext, onRun } from './command';
import { more } from './flag-values';
import { json } from './render';
import { OUTPUT_FORMATS } from './report';
import { addSettings, settingOf } from './settings-options';

/** `keyturn bootstrap`. */
export function addBootstrap(program: Command, context: CommandContext): void {
  const command = addSettings(program.command('bootstrap'), ['sds-socket', 'trust-domain', 'config'])
    .summary('Print an Envoy bootstrap that uses this agent')
    .description(
      'Print an Envoy bootstrap, as JSON (which is YAML too), whose identity comes from this agent. It serves mutual TLS for an application, calls a peer with mutual TLS, or both.',
    )
    .option('--listen <host:port>', 'Where others call with mutual TLS (default 0.0.0.0:8443, unless only --peer is given)')
    .option('--app <host:port>', 'Where the application listens, in plain HTTP (default 127.0.0.1:8080)')
    .option('--caller <id>', 'SPIFFE ID that may call; may be given again (default: any of the trust domain)', more)
    .option('--peer <host:port>', 'A peer to call with mutual TLS')
    .option('--peer-id <id>', 'SPIFFE ID that the peer must prove (default: any of the trust domain)')
    .option('--peer-listen <host:port>', 'Where the application calls the peer, in plain HTTP', '127.0.0.1:9080')
    .option('--requests-per-connection <number>', 'Close a connection to the peer after this many requests')
    .option('--no-session-resumption', 'Make every TLS handshake a full one')
    .option('--admin <host:port>', "Envoy's own admin interface", '127.0.0.1:15000')
    .option('--node-id <text>', 'How Envoy names itself to the agent', 'keyturn-envoy')
    .addOption(new Option('-o, --output <format>', 'Form of errors; the bootstrap is JSON in both').choices(OUTPUT_FORMATS).default('text'))
    .addHelpText(
      'after',
      '\nExamples:\n  keyturn bootstrap > envoy.json && envoy -c envoy.json\n  keyturn bootstrap --peer 10.0.0.7:8443 --peer-id spiffe://cluster.local/ns/shop/sa/cart',
    );
  onRun(command, context, async ({ given, flags }) => {
    const { terminal } = context;
    const { createBootstrap } = await import('../envoy/bootstrap');
    const address = (name: string, flag: string, fallback?: string): HostPort | undefined => {
      const text = given[name] ?? fallback;
      return text === undefined ? undefined : parseHostPort(String(text), `flag --${flag}`);
    };
    const peer = address('peer', 'peer');
    const inbound = given.listen !== undefined || given.app !== undefined || peer === undefined;
    const callers = given.caller as string[] | undefined;
    const bootstrap = createBootstrap({
      // Envoy's working directory need not be ours.
      sdsSocket: resolve(terminal.cwd, await settingOf('sds-socket', flags, terminal)),
      trustDomain: await settingOf('trust-domain', flags, terminal),
      admin: address('admin', 'admin')!,
      nodeId: String(given.nodeId),
      sessionResumption: given.sessionResumption !== false,
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
          ...(given.requestsPerConnection !== undefined && { requestsPerConnection: wholeNumber(String(given.requestsPerConnection)) }),
        },
      }),
    });
    terminal.out(json(bootstrap));
    return 0;
  });
}

function wholeNumber(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw invalid('ERR_USAGE', 'flag --requests-per-connection', 'must be a whole number from 1');
  return Number(text);
}
