import { resolve } from 'node:path';
import type { Command } from 'commander';
import { writePem } from '../base/pem';
import { privateKeyPem } from '../identity/keys';
import { loadEngine } from '../identity/load-engine';
import { parseSpiffeId } from '../identity/spiffe-id';
import { type CommandContext, onRun, withOutput } from './command';
import { addCsrLint } from './csr-lint';
import { json } from './render';
import { addSettings, settingOf } from './settings-options';
import { writeNew } from './write-new';

/** `keyturn csr create` and `keyturn csr lint`. */
export function addCsr(program: Command, context: CommandContext): void {
  const csr = program
    .command('csr')
    .helpCommand(false)
    .summary('Create and lint certificate signing requests')
    .description(
      'Create certificate signing requests, and lint them by the rules of authorities, without an agent.',
    );
  addCsrLint(csr, context);
  const create = addSettings(withOutput(csr.command('create')), [
    'spiffe-id',
    'key-algorithm',
    'key-format',
    'crypto',
    'config',
  ])
    .summary('Create a key and a request for it')
    .description('Create a key and a PKCS#10 request with one SPIFFE ID, as the agent does.')
    .requiredOption('--key-out <file>', 'File for the private key, mode 0600')
    .option('--out <file>', 'File for the request instead of standard output')
    .option('--force', 'Replace files that exist')
    .addHelpText(
      'after',
      '\nExample:\n  keyturn csr create --spiffe-id spiffe://cluster.local/ns/shop/sa/cart --key-out key.pem > cart.csr',
    );
  create.options.find((option) => option.long === '--spiffe-id')?.makeOptionMandatory();
  onRun(create, context, async ({ format, given, flags }) => {
    const { terminal } = context;
    const id = parseSpiffeId(await settingOf('spiffe-id', flags, terminal));
    const engine = await loadEngine(await settingOf('crypto', flags, terminal));
    const key = await engine.generateKeyPair(await settingOf('key-algorithm', flags, terminal));
    const csrPem = writePem('CERTIFICATE REQUEST', await engine.createCsr(key, id));
    const keyPem = privateKeyPem(key, await settingOf('key-format', flags, terminal));
    const [keyOut, out] = [String(given.keyOut), given.out as string | undefined];
    try {
      await writeNew(resolve(terminal.cwd, keyOut), keyPem, 0o600, given.force === true);
    } finally {
      keyPem.fill(0);
    }
    if (out !== undefined)
      await writeNew(resolve(terminal.cwd, out), csrPem, 0o644, given.force === true);
    const facts = {
      keyAlgorithm: key.algorithm,
      key: keyOut,
      ...(out === undefined ? { csrPem: csrPem.toString('latin1') } : { csr: out }),
    };
    if (format === 'json') terminal.out(json(facts));
    else if (out === undefined) terminal.out(csrPem.toString('latin1'));
    return 0;
  });
}
