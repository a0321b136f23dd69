import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { type CommandContext, onRun } from './command';
import { addEnvoyFlags, readEnvoyFlags } from './envoy-flags';
import { json } from './render';
import { OUTPUT_FORMATS } from './report';
import { addSettings, settingOf } from './settings-options';

/** `keyturn bootstrap`. */
export function addBootstrap(program: Command, context: CommandContext): void {
  const command = addEnvoyFlags(
    addSettings(program.command('bootstrap'), ['sds-socket', 'trust-domain', 'config']),
  )
    .summary('Print an Envoy bootstrap that uses this agent')
    .description(
      'Print an Envoy bootstrap, as JSON (which is YAML too), whose identity comes from this agent. It serves mutual TLS for an application, calls a peer with mutual TLS, or both.',
    )
    .option('--node-id <text>', 'How Envoy names itself to the agent', 'keyturn-envoy')
    .addOption(
      new Option('-o, --output <format>', 'Form of errors; the bootstrap is JSON in both')
        .choices(OUTPUT_FORMATS)
        .default('text'),
    )
    .addHelpText(
      'after',
      '\nExamples:\n  keyturn bootstrap > envoy.json && envoy -c envoy.json\n  keyturn bootstrap --peer 10.0.0.7:8443 --peer-id spiffe://cluster.local/ns/shop/sa/cart',
    );
  onRun(command, context, async ({ given, flags }) => {
    const { terminal } = context;
    const { createBootstrap } = await import('../envoy/bootstrap');
    const bootstrap = createBootstrap({
      // Envoy's working directory need not be ours.
      sdsSocket: resolve(terminal.cwd, await settingOf('sds-socket', flags, terminal)),
      trustDomain: await settingOf('trust-domain', flags, terminal),
      nodeId: String(given.nodeId),
      ...readEnvoyFlags(given),
    });
    terminal.out(json(bootstrap));
    return 0;
  });
}
