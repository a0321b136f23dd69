import { unlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { assertClockIsSet } from '../base/clock-floor';
import { AgentError } from '../base/errors';
import { iso } from '../base/iso';
import { readSmallFile } from '../base/read-file';
import { addresses, duration, spiffeId, word } from '../config/value-types';
import {
  certificatesPem,
  parseCertificate,
  parseRootBundle,
  uriNames,
} from '../identity/certificate';
import { formatSpiffeId, parseSpiffeId } from '../identity/spiffe-id';
import { rootsToHandOut } from '../identity/valid-now';
import { addState, withState } from './ca-state';
import { type CommandContext, type CommandOptions, onRun, withOutput } from './command';
import { formatJoinFile, type JoinFile } from './join-file';
import { facts, instant, json } from './render';
import type { Terminal } from './terminal';
import { writeNew } from './write-new';

const TTL = duration({ atLeast: '1s', atMost: '365d' });

/** `keyturn vm bundle`, below `keyturn vm`. */
export function addVmBundle(vm: Command, context: CommandContext): void {
  const bundle = addState(withOutput(vm.command('bundle')))
    .summary('Create the join file of a machine')
    .description(
      'Create the join file of a machine: roots, address of the authority, SPIFFE ID, and a token for its first certificate. Keep it secret until it is used; its mode is 0600.',
    )
    .requiredOption('--spiffe-id <id>', 'SPIFFE ID of the machine')
    .requiredOption('--ca-address <host:port>', 'Where the machine reaches keyturn ca serve')
    .option(
      '--ca-server-name <name>',
      "What the authority's certificate is for, where that is not the host of --ca-address",
    )
    .addOption(new Option('--ttl <duration>', 'Lifetime of the token').default('1h'))
    .requiredOption('--out <file>', 'Where the file is written')
    .option('--force', 'Replace a file that exists')
    .addHelpText(
      'after',
      `
Example:
  keyturn vm bundle --spiffe-id spiffe://example.org/db --ca-address ca.example.org:15012 \\
    --out db.join`,
    );
  onRun(bundle, context, (options) => makeBundle(options, context.terminal));
}

async function makeBundle(options: CommandOptions, terminal: Terminal): Promise<number> {
  const { given, format } = options;
  const out = resolve(terminal.cwd, String(given.out));
  const id = parseSpiffeId(spiffeId.parse(String(given.spiffeId), 'flag --spiffe-id'));
  const [caAddress, ...more] = addresses.parse(String(given.caAddress), 'flag --ca-address');
  if (more.length > 0) throw new AgentError('ERR_CONFIG', 'flag --ca-address: must be one address');
  const name = given.caServerName as string | undefined;
  const caServerName =
    name === undefined ? undefined : word('name', 'host name').parse(name, 'flag --ca-server-name');
  const ttlMs = TTL.parse(String(given.ttl), 'flag --ttl');
  // The name is taken before there is a token: one that nobody can read would be good all the same.
  await writeNew(out, Buffer.alloc(0), 0o600, given.force === true);
  const file = await withState(
    options,
    terminal,
    async (store, dir, { clock }): Promise<JoinFile> => {
      const now = clock.now();
      const rootsPem = await readRoots(dir, id.trustDomain, now);
      assertClockIsSet(`make a token for ${formatSpiffeId(id)}`, now);
      const token = await store.createJoinToken(id, Math.floor(ttlMs / 1_000), now);
      return {
        spiffeId: String(given.spiffeId),
        caAddress: caAddress!,
        caServerName,
        rootsPem,
        token,
        expiresAt: now + ttlMs,
      };
    },
  ).catch(async (caught: unknown) => {
    await unlink(out);
    throw caught;
  });
  await writeNew(out, formatJoinFile(file), 0o600, true);
  const about = {
    file: out,
    spiffeId: file.spiffeId,
    caAddress: file.caAddress,
    expiresAt: iso(file.expiresAt),
  };
  const next = `take it to the machine, and there: keyturn vm join ${String(given.out).split('/').at(-1)}`;
  const text = () =>
    facts([
      ['file', about.file],
      ['for', about.spiffeId],
      ['authority', about.caAddress],
      ['token good until', instant(about.expiresAt, file.expiresAt - ttlMs)],
      ['next', next],
    ]);
  terminal.out(format === 'json' ? json(about) : text());
  return 0;
}

/** The authority's roots, which must be of the identity's trust domain: else the machine would learn only later that it cannot join. */
async function readRoots(dir: string, trustDomain: string, now: number): Promise<Buffer> {
  const path = join(dir, 'root-cert.pem');
  const { bundle, skipped } = parseRootBundle(
    await readSmallFile(path, { field: path, code: 'ERR_INPUT' }),
    path,
  );
  if (skipped[0] !== undefined) throw new AgentError('ERR_CA_STATE', `read ${path}: ${skipped[0]}`);
  const uris = bundle.rootsDer.flatMap((der) => uriNames(parseCertificate(der, path)));
  const domains = uris.flatMap((uri) => /^spiffe:\/\/([^/]+)/.exec(uri)?.[1] ?? []);
  if (domains.length > 0 && !domains.includes(trustDomain)) {
    throw new AgentError(
      'ERR_CONFIG',
      `flag --spiffe-id: is of trust domain ${trustDomain}, and the authority in ${dir} is of ${domains[0]}`,
    );
  }
  return certificatesPem(rootsToHandOut(bundle, now).rootsDer);
}
