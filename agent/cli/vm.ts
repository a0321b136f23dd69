import type { Command } from 'commander';
import type { CommandContext } from './command';
import { addVmBundle } from './vm-bundle';
import { addVmJoin } from './vm-join';

/** `keyturn vm`: how a machine gets to know an authority. */
export function addVm(program: Command, context: CommandContext): void {
  const vm = program
    .command('vm')
    .helpCommand(false)
    .summary('Bring machines to an authority of your own')
    .description(
      'Bring a machine to an authority of keyturn ca serve: one join file, created at the authority and installed on the machine.',
    );
  for (const add of [addVmBundle, addVmJoin]) add(vm, context);
}
