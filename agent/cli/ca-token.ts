import { access } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { systemClock } from '../base/clock';
import { duration } from '../config/value-types';
import { formatSpiffeId, parseSpiffeId } from '../identity/spiffe-id';
import { type CommandContext, onRun, withOutput } from './command';
import { commandDeps } from './command-deps';
import { json } from './render';
import { addSettings, settingOf } from './settings-options';

const TTL = duration({ atLeast: '1s', atMost: '365d' });

/** `keyturn ca token create`, below `keyturn ca`. */
export function addCaToken(ca: Command, context: CommandContext): void {
  const token = ca
    .command('token')
    .helpCommand(false)
    .summary('Make one-time tokens for machines')
    .description('Make tokens by which a machine without any other proof gets its first certificate.');
  const create = addSettings(withOutput(token.command('create')), ['ca-dir', 'config'])
    .summary('Make a token that is good for one certificate')
    .description(
      'Make a token that is good for one certificate of one identity, and print it. Only its hash is kept. A running ca serve on the same directory knows it at once.',
    )
    .requiredOption('--spiffe-id <id>', 'Whom the certificate is to be for')
    .addOption(new Option('--ttl <duration>', 'How long the token is good').default('1h'))
    .addHelpText('after', '\nExample:\n  keyturn ca token create --spiffe-id spiffe://example.org/db --ttl 1h > token');
  onRun(create, context, async ({ format, given, flags }) => {
    const { terminal } = context;
    const id = parseSpiffeId(String(given.spiffeId));
    const ttlMs = TTL.parse(String(given.ttl), 'flag --ttl');
    const dir = resolve(terminal.cwd, await settingOf('ca-dir', flags, terminal));
    const { openFileStore } = await import('../../ca-client/builtin/store/file-store');
    if (!(await exists(join(dir, 'ca-cert.pem')))) terminal.err(`keyturn: note: ${dir} holds no authority yet; ca serve makes one\n`);
    const store = await openFileStore(dir, commandDeps(terminal));
    try {
      const now = systemClock.now();
      const secret = await store.createJoinToken(id, Math.floor(ttlMs / 1_000), now);
      const facts = { token: secret.reveal(), spiffeId: formatSpiffeId(id), expiresAt: new Date(now + ttlMs).toISOString() };
      terminal.out(format === 'json' ? json(facts) : `${facts.token}\n`);
      return 0;
    } finally {
      await store.close();
    }
  });
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
