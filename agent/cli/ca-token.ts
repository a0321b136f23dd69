import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import type { JoinTokenQuery } from '../authority/store/store';
import { assertClockIsSet } from '../base/clock-floor';
import { AgentError } from '../base/errors';
import { iso } from '../base/iso';
import { Secret } from '../base/secret';
import { duration } from '../config/value-types';
import { formatSpiffeId, parseSpiffeId, type SpiffeId } from '../identity/spiffe-id';
import { addState, withState } from './ca-state';
import { type CommandContext, onRun, withOutput } from './command';
import { readInput } from './input';
import { json } from './render';
import type { Terminal } from './terminal';

const TTL = duration({ atLeast: '1s', atMost: '365d' });

/** A token, and some blanks around it. */
const MAX_TOKEN_BYTES = 256;

/** `keyturn ca token create` and `delete`, below `keyturn ca`. */
export function addCaToken(ca: Command, context: CommandContext): void {
  const token = ca
    .command('token')
    .helpCommand(false)
    .summary('Create and delete one-time tokens for machines')
    .description(
      'Create tokens that a machine without another credential exchanges for its first certificate.',
    );
  const create = addState(withOutput(token.command('create')))
    .summary('Create a token for one certificate')
    .description(
      'Create a token for one certificate of one identity, and print it. Only its hash is stored. A running ca serve on the same state accepts it at once. Its first use binds it to a key; that key may retry for 10 minutes, up to 5 times.',
    )
    .requiredOption('--spiffe-id <id>', 'SPIFFE ID of the certificate')
    .addOption(new Option('--ttl <duration>', 'Lifetime of the token').default('1h'))
    .addHelpText(
      'after',
      '\nExample:\n  keyturn ca token create --spiffe-id spiffe://example.org/db --ttl 1h > token',
    );
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
      return {
        token: secret.reveal(),
        spiffeId: formatSpiffeId(id),
        expiresAt: iso(now + ttlMs),
      };
    });
    terminal.out(format === 'json' ? json(facts) : `${facts.token}\n`);
    return 0;
  });
  addDelete(token, context);
}

function addDelete(token: Command, context: CommandContext): void {
  const command = addState(withOutput(token.command('delete')))
    .summary('Delete tokens')
    .description(
      'Delete a token, or all tokens of an identity, used ones included: no ca serve answers them again. Certificates that they led to stay good; keyturn ca revoke takes those back, and their tokens too.',
    )
    .argument('<what>', 'SPIFFE ID, or file that holds a token (- for standard input)')
    .addHelpText('after', '\nExample:\n  keyturn ca token delete spiffe://example.org/db');
  onRun(command, context, async (options, [what]) => {
    const query = await readQuery(String(what), context.terminal);
    const deleted = await withState(options, context.terminal, (store, _, { clock }) =>
      store.deleteJoinTokens(query, clock.now()),
    );
    if (deleted === 0) {
      throw new AgentError('ERR_INPUT', `delete tokens of ${what}: no valid token`, {
        hint: 'it may have expired, been deleted before, or be of another authority: see --ca-dir and --state',
      });
    }
    context.terminal.out(
      options.format === 'json'
        ? json({ deleted })
        : `${deleted} ${deleted === 1 ? 'token' : 'tokens'} deleted\n`,
    );
    return 0;
  });
}

async function readQuery(what: string, terminal: Terminal): Promise<JoinTokenQuery> {
  if (what.startsWith('spiffe:')) return { id: formatSpiffeId(parseSpiffeId(what)) };
  const bytes = await readInput(what, terminal, MAX_TOKEN_BYTES);
  return { token: new Secret(Buffer.from(bytes).toString('utf8').trim()) };
}

/** What would make a token of no use, which a server that runs elsewhere or is started later may still mend. */
async function tellMismatch(
  dir: string,
  { trustDomain }: SpiffeId,
  terminal: Terminal,
): Promise<void> {
  if (await isMissing(join(dir, 'ca-cert.pem'))) {
    terminal.err(`keyturn: note: ${dir} holds no authority yet; ca init and ca serve make one\n`);
    return;
  }
  const { namedTrustDomain } = await import('../authority/roots/root-facts');
  const named = await namedTrustDomain(dir);
  if (named === undefined || named === trustDomain) return;
  terminal.err(
    `keyturn: note: the authority in ${dir} is for ${named}; ${trustDomain} must be among ca serve's --trust-domain-aliases\n`,
  );
}

function isMissing(path: string): Promise<boolean> {
  return access(path).then(
    () => false,
    () => true,
  );
}
