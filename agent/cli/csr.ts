import { link, lstat, open, rename, unlink } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { AgentError, errorText, systemCode } from '../base/errors';
import { writePem } from '../base/pem';
import { privateKeyPem } from '../identity/keys';
import { loadEngine } from '../identity/load-engine';
import { parseSpiffeId } from '../identity/spiffe-id';
import { type CommandContext, onRun, withOutput } from './command';
import { addCsrLint } from './csr-lint';
import { refuseDangerousEnvironment } from './environment';
import { json } from './render';
import { addSettings, settingOf } from './settings-options';

/** `keyturn csr create` and `keyturn csr lint`. */
export function addCsr(program: Command, context: CommandContext): void {
  const csr = program
    .command('csr')
    .helpCommand(false)
    .summary('Make and judge certificate signing requests')
    .description('Make certificate signing requests, and say what authorities would find wrong with them, without an agent.');
  addCsrLint(csr, context);
  const create = addSettings(withOutput(csr.command('create')), ['spiffe-id', 'key-algorithm', 'key-format', 'crypto', 'config'])
    .summary('Make a key and a request for it')
    .description('Make a new key and a PKCS#10 request with one SPIFFE ID, as the agent makes them.')
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
    refuseDangerousEnvironment(terminal.env);
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
    if (out !== undefined) await writeNew(resolve(terminal.cwd, out), csrPem, 0o644, given.force === true);
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

/** Writes a whole file or none. With `force` it replaces a regular file, and never a device, a link or a directory; without, nothing. */
async function writeNew(path: string, bytes: Uint8Array, mode: number, force: boolean): Promise<void> {
  const temporary = `${path}.${process.pid}.new`;
  try {
    const file = await open(temporary, 'wx', mode);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    // A link fails where the name is taken; a rename replaces.
    if (force) await replace(temporary, path);
    else await link(temporary, path);
  } catch (caught) {
    const exists = systemCode(caught) === 'EEXIST';
    throw new AgentError('ERR_OUTPUT', `write ${path}: ${exists ? 'the file exists' : errorText(caught)}`, {
      ...(exists ? { hint: 'give another name, or --force to replace it' } : { cause: caught }),
    });
  } finally {
    await unlink(temporary).catch(() => undefined);
  }
}

async function replace(temporary: string, path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found?.isFile() === false) throw new AgentError('ERR_OUTPUT', 'only a regular file is replaced, and this is none');
  await rename(temporary, path);
}
