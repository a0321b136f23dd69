import { type Command, Option } from 'commander';
import { REVOCATION_REASONS, type RevocationReason } from '../../ca-client/builtin/store/store';
import { AgentError, invalid } from '../base/errors';
import { formatSpiffeId, parseSpiffeId } from '../identity/spiffe-id';
import { addState, withState } from './ca-state';
import { type CommandContext, onRun, withOutput } from './command';
import { instant, json, table } from './render';

/** `keyturn ca revoke`, below `keyturn ca`. */
export function addCaRevoke(ca: Command, context: CommandContext): void {
  const command = addState(withOutput(ca.command('revoke')))
    .summary('Revoke certificates by serial number or identity')
    .description(
      'Revoke a certificate by its serial number, or all valid ones of an identity. A running ca serve takes them no more as proof, and offers a new CRL at once. Only what ca serve has issued can be revoked: an agent with --ca builtin has the key of the authority itself.',
    )
    .argument('<what>', 'Serial number in hex, or SPIFFE ID')
    .addOption(new Option('--reason <reason>', 'Why').choices(Object.keys(REVOCATION_REASONS)).default('unspecified'))
    .addHelpText('after', '\nExample:\n  keyturn ca revoke spiffe://example.org/db --reason keyCompromise');
  onRun(command, context, async (options, [what]) => {
    const query = readQuery(String(what));
    const { revoked, now } = await withState(options, context.terminal, async (store, _, { clock }) => {
      const now = clock.now();
      if ((await store.issued(query, now)).length === 0) {
        throw new AgentError('ERR_INPUT', `revoke ${what}: no valid certificate is known by that`, {
          // Such an agent holds the authority's key: what it signed for itself says nothing that it could not say again.
          hint: 'the register holds what ca serve has issued; what keyturn run --ca builtin signs for itself ends with the root: ca root add, activate, retire --force',
        });
      }
      return { revoked: await store.revoke(query, options.given.reason as RevocationReason, now), now };
    });
    const rows = revoked.map(({ serial, id, notAfterAt }) => ({ serial, id, notAfter: new Date(notAfterAt).toISOString() }));
    const text = () =>
      table([['SERIAL', 'IDENTITY', 'WOULD HAVE EXPIRED'], ...rows.map((each) => [each.serial, each.id, instant(each.notAfter, now)])]);
    context.terminal.out(options.format === 'json' ? json({ revoked: rows }) : rows.length === 0 ? 'revoked already\n' : text());
    return 0;
  });
}

function readQuery(text: string): { readonly id: string } | { readonly serial: string } {
  if (text.startsWith('spiffe:')) return { id: formatSpiffeId(parseSpiffeId(text)) };
  const serial = text.replaceAll(':', '').toLowerCase();
  if (!/^[0-9a-f]{1,40}$/.test(serial)) throw invalid('ERR_CONFIG', 'what to revoke', 'must be a serial number in hex, or a SPIFFE ID');
  return { serial };
}
