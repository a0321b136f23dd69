import type { Command } from 'commander';
import { addCaBundle } from './ca-bundle';
import { addCaRevoke } from './ca-revoke';
import { addCaRoot } from './ca-root';
import { addCaServe } from './ca-serve';
import { addCaToken } from './ca-token';
import type { CommandContext } from './command';

/** `keyturn ca`: an authority of one's own, and what keeps it. */
export function addCa(program: Command, context: CommandContext): void {
  const ca = program
    .command('ca')
    .helpCommand(false)
    .summary('Run and keep an authority of your own')
    .description(
      'Run an authority of your own, and keep its state. Commands work on its directory, also beside a running ca serve.',
    );
  for (const add of [addCaServe, addCaToken, addCaRoot, addCaRevoke, addCaBundle]) add(ca, context);
}
