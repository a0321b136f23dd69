import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { assertClockIsSet } from '../base/clock-floor';
import { duration } from '../config/value-types';
import { formatSpiffeId, parseSpiffeId, type SpiffeId } from '../identity/spiffe-id';
import { addState, withState } from './ca-state';
import { type CommandContext, onRun, withOutput } from './command';
import { json } from './render';
import type { Terminal } from './terminal';

const TTL = duration({ atLeast: '1s', atMost: '365d' });

/** `keyturn ca token create`, below `keyturn ca`. */
export function addCaToken(ca: Command, context: CommandContext): void {
  const token = ca
    .command('token')
    .helpCommand(false)
    .summary('Make one-time tokens for machines')
    .description('Make tokens by which a machine without any other proof gets its first certificate.');
  const create = addState(withOutput(token.command('create')))
    .summary('Make a token that is good for one certificate')
    .description(
      'Make a token that is good for one certificate of one identity, and print it. Only its hash is kept. A running ca serve on the same state knows it at once.',
    )
    .requiredOption('--spiffe-id <id>', 'Whom the certificate is to be for')
    .addOption(new Option('--ttl <duration>', 'How long the token is good').default('1h'))
    .addHelpText('after', '\nExample:\n  keyturn ca token create --spiffe-id spiffe://example.org/db --ttl 1h > token');
  onRun(create, context, async (options) => {
    const { format, given } = options;
    const { terminal } = context;
    const id = parseSpiffeId(String(given.spiffeId));
    const ttlMs = TTL.parse(String(given.ttl), 'flag --ttl');
    const facts = await withState(options, terminal, async (store, dir, { clock }) => {
      if (given.state === 'file') await tellMismatch(dir, id, terminal);
      const now = clock.now();
      assertClockIsSet(`make a token for ${formatSpiffeId(id)}`, now);
      const secret = await store.createJoinToken(id, Math.floor(ttlMs / 1_000), now);
      return { token: secret.reveal(), spiffeId: formatSpiffeId(id), expiresAt: new Date(now + ttlMs).toISOString() };
    });
    terminal.out(format === 'json' ? json(facts) : `${facts.token}\n`);
    return 0;
  });
}

/** What would make a token of no use, which a server that runs elsewhere or is started later may still mend. */
async function tellMismatch(dir: string, { trustDomain }: SpiffeId, terminal: Terminal): Promise<void> {
  if (await isMissing(join(dir, 'ca-cert.pem'))) {
    terminal.err(`keyturn: note: ${dir} holds no authority yet; ca init and ca serve make one\n`);
    return;
  }
  const { namedTrustDomain } = await import('../../ca-client/builtin/root-facts');
  const named = await namedTrustDomain(dir);
  if (named === undefined || named === trustDomain) return;
  terminal.err(`keyturn: note: the authority in ${dir} is for ${named}; ${trustDomain} must be among ca serve's --trust-domain-aliases\n`);
}

function isMissing(path: string): Promise<boolean> {
  return access(path).then(
    () => false,
    () => true,
  );
}
