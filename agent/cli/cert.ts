import type { Command } from 'commander';
import { systemClock } from '../base/clock';
import { AgentError } from '../base/errors';
import { certificateText, inspectPem } from './certificate-text';
import { type CommandContext, onRun, withOutput } from './command';
import { readInput } from './input';
import { json } from './render';

/** `keyturn cert show`. */
export function addCert(program: Command, context: CommandContext): void {
  const cert = program
    .command('cert')
    .helpCommand(false)
    .summary('Inspect certificates')
    .description('Inspect certificates in files, without an agent.');
  const show = withOutput(cert.command('show'))
    .summary('Show the certificates of a PEM file')
    .description('Show what the certificates of a PEM file say. Nothing is verified.')
    .argument('<file>', 'PEM file; - is standard input')
    .option('--full', 'Every field and extension of each')
    .addHelpText(
      'after',
      '\nExamples:\n  keyturn cert show ./etc/certs/cert-chain.pem\n  keyturn secret get default --pem | keyturn cert show -',
    );
  onRun(show, context, async ({ format, given }, [file]) => {
    const path = String(file);
    const field = path === '-' ? 'standard input' : path;
    const found = await inspectPem(await readInput(path, context.terminal), field);
    if (found.length === 0) throw new AgentError('ERR_PARSE', `${field}: holds no certificate`);
    const { describeCertificate } = await import('../identity/x509');
    const text = () => {
      if (given.full === true) return found.map(({ der }) => `${describeCertificate(der)}\n`);
      return found.map(
        (each, index) =>
          `certificate ${index + 1} of ${found.length}\n${certificateText(each.facts, systemClock.now(), '  ')}`,
      );
    };
    context.terminal.out(
      format === 'json'
        ? json({ certificates: found.map((each) => each.facts) })
        : text().join('\n'),
    );
    return 0;
  });
}
