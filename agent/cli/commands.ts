import type { Command } from 'commander';
import { CRYPTO_LIBRARY, RUNTIME } from '../base/runtime';
import { VERSION } from '../base/version';
import { addApprover } from './approver';
import { addBootstrap } from './bootstrap';
import { addCa } from './ca';
import { addCert } from './cert';
import { type CommandContext, onRun, withOutput } from './command';
import { addCompletion } from './completion';
import { addConfig } from './config';
import { addPlan, addRotate, addStatus } from './control';
import { addCsr } from './csr';
import { addHealthcheck, addWait } from './health';
import { addInject } from './inject';
import { addPolicy } from './policy';
import { json } from './render';
import { addSecret } from './secret';
import { addVm } from './vm';
import { addWebhook } from './webhook';

/** Adds every command other than `run`, in the order of the help. */
export function addCommands(program: Command, context: CommandContext): Command {
  program.commandsGroup('Ask a running agent:');
  for (const add of [addStatus, addHealthcheck, addWait, addPlan, addRotate, addSecret])
    add(program, context);
  program.commandsGroup('An authority of your own:');
  for (const add of [addCa, addVm, addApprover]) add(program, context);
  program.commandsGroup('Pods of a cluster:');
  for (const add of [addInject, addWebhook]) add(program, context);
  program.commandsGroup('Policies:');
  addPolicy(program, context);
  program.commandsGroup('Files and settings:');
  for (const add of [addCert, addCsr, addBootstrap, addConfig]) add(program, context);
  program.commandsGroup('This program:').helpCommand('help [command]', 'Explain a command');
  addCompletion(program, context);
  addVersion(program, context);
  return program;
}

function addVersion(program: Command, context: CommandContext): void {
  const command = withOutput(program.command('version'))
    .summary('Print the version and the runtime')
    .description('Print the version and the runtime.');
  onRun(command, context, async ({ format }) => {
    const facts = {
      version: VERSION,
      runtime: RUNTIME,
      crypto: CRYPTO_LIBRARY,
      platform: `${process.platform} ${process.arch}`,
    };
    context.terminal.out(
      format === 'json'
        ? json(facts)
        : `keyturn ${facts.version} (${facts.runtime}, ${facts.crypto}, ${facts.platform})\n`,
    );
    return 0;
  });
}
