import { type Command, Option } from 'commander';
import {
  type CaStore,
  REVOCATION_REASONS,
  type Revocation,
  type RevocationReason,
} from '../authority/store/store';
import type { Clock } from '../base/clock';
import { AgentError, invalid } from '../base/errors';
import { iso } from '../base/iso';
import { formatSpiffeId, parseSpiffeId } from '../identity/spiffe-id';
import { addState, withState } from './ca-state';
import { type CommandContext, onRun, withOutput } from './command';
import { instant, json, table } from './render';

/** A running server has heard of a revocation by then. */
const SETTLE_MS = 500;
const MAX_ROUNDS = 20;

/** `keyturn ca revoke`, below `keyturn ca`. */
export function addCaRevoke(ca: Command, context: CommandContext): void {
  const command = addState(withOutput(ca.command('revoke')))
    .summary('Revoke certificates by serial number or identity')
    .description(
      'Revoke a certificate by its serial number, or all valid ones of an identity. A running ca serve stops accepting them, publishes a new CRL at once, and refuses the one-time tokens that led to them. Only certificates of ca serve can be revoked: an agent with --ca builtin has the key of the authority itself.',
    )
    .argument('<what>', 'Serial number in hex, or SPIFFE ID')
    .addOption(
      new Option('--reason <reason>', 'Why')
        .choices(Object.keys(REVOCATION_REASONS))
        .default('unspecified'),
    )
    .addHelpText(
      'after',
      '\nExample:\n  keyturn ca revoke spiffe://example.org/db --reason keyCompromise',
    );
  onRun(command, context, async (options, [what]) => {
    const query = readQuery(String(what));
    const { revoked, now } = await withState(
      options,
      context.terminal,
      async (store, _, { clock }) => {
        const now = clock.now();
        if ((await store.issued({ ...query, renewable: true }, now)).length === 0) {
          // Also where no certificate was registered: a token that was used may still be answered again.
          const deleted =
            'id' in query ? await store.deleteJoinTokens({ ...query, boundOnly: true }, now) : 0;
          const tokens = deleted === 0 ? '' : `; used tokens deleted: ${deleted}`;
          throw new AgentError(
            'ERR_INPUT',
            `revoke ${what}: no valid certificate matches${tokens}`,
            {
              // Such an agent holds the authority's key: what it signed for itself says nothing that it could not say again.
              hint: 'the register holds what ca serve has issued; what keyturn run --ca builtin signs for itself ends with the root: ca root add, activate, retire --force',
            },
          );
        }
        return {
          revoked: await revokeAll(store, query, options.given.reason as RevocationReason, clock),
          now,
        };
      },
    );
    const rows = revoked.map(({ serial, id, notAfterAt }) => ({
      serial,
      id,
      notAfter: iso(notAfterAt),
    }));
    const text = () =>
      table([
        ['SERIAL', 'IDENTITY', 'WOULD HAVE EXPIRED'],
        ...rows.map((each) => [each.serial, each.id, instant(each.notAfter, now)]),
      ]);
    context.terminal.out(
      options.format === 'json'
        ? json({ revoked: rows })
        : rows.length === 0
          ? 'revoked already\n'
          : text(),
    );
    return 0;
  });
}

/**
 * Revokes what is known by the query, and of an identity also what a running server issues before it has heard of that: whoever has a stolen
 * key may renew at any moment, this one too.
 *
 * @throws AgentError ERR_TOO_EARLY where new ones are issued for as long as it looks.
 */
async function revokeAll(
  store: CaStore,
  query: { readonly id: string } | { readonly serial: string },
  reason: RevocationReason,
  clock: Clock,
): Promise<readonly Revocation[]> {
  let revoked = await store.revoke(query, reason, clock.now());
  if (!('id' in query)) return revoked;
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    await clock.sleepUntil(clock.now() + SETTLE_MS);
    const more = await store.revoke(query, reason, clock.now());
    if (more.length === 0) return revoked;
    revoked = [...revoked, ...more];
  }
  throw new AgentError(
    'ERR_TOO_EARLY',
    `revoke ${query.id}: ${revoked.length} certificates were, and new ones are still being issued`,
    {
      hint: 'a client renews them or uses a token: stop ca serve or lower its --rate-per-identity, and revoke again',
    },
  );
}

function readQuery(text: string): { readonly id: string } | { readonly serial: string } {
  if (text.startsWith('spiffe:')) return { id: formatSpiffeId(parseSpiffeId(text)) };
  const serial = text.replaceAll(':', '').toLowerCase();
  if (!/^[0-9a-f]{1,40}$/.test(serial))
    throw invalid('ERR_CONFIG', 'what to revoke', 'must be a serial number in hex, or a SPIFFE ID');
  return { serial };
}
