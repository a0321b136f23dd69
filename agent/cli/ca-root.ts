import type { Command } from 'commander';
import { systemClock } from '../base/clock';
import { parseDuration } from '../base/duration';
import { iso } from '../base/iso';
import { readSetting } from '../config/load';
import { loadEngine } from '../identity/load-engine';
import { addState, withState } from './ca-state';
import { type CommandContext, type CommandOptions, onRun, withOutput } from './command';
import { readInput } from './input';
import { counted, instant, json, table } from './render';
import { addSettingAs, addSettings, settingOf } from './settings-options';
import type { Terminal } from './terminal';

type Roots = typeof import('../authority/roots/roots');
type RootsOptions = import('../authority/roots/root-facts').RootsOptions;
type RootStatus = import('../authority/roots/roots').RootStatus;

/** `keyturn ca root list|add|activate|retire`, below `keyturn ca`. */
export function addCaRoot(ca: Command, context: CommandContext): void {
  const root = ca
    .command('root')
    .helpCommand(false)
    .summary('Replace roots in stages')
    .description(
      'Replace the root of an authority in stages: add distributes it, activate signs under it, retire removes the old root. Each stage refuses a change that would break a certificate in use.',
    );
  addList(root, context);
  addAdd(root, context);
  addActivate(root, context);
  addRetire(root, context);
}

function addList(root: Command, context: CommandContext): void {
  const command = rootCommand(root, 'list', 'Show every root, its stage and certificates in use')
    .description(
      'Show every distributed root, its stage, how many valid certificates chain to it, and which identities have not received it.',
    )
    .option('--overlap <duration>', 'How long a root is distributed before it signs');
  onRun(command, context, async (options) => {
    const overlapMs = durationOf(options, 'overlap');
    const found = await withRoots(options, context.terminal, (api, about) =>
      api.listRoots(about, overlapMs, systemClock.now()),
    );
    const roots = STAGES.flatMap((stage) => found.filter((each) => each.stage === stage));
    const text = () =>
      `${table([HEAD, ...roots.map(rootRow)])}${roots.map(withoutItText).join('')}`;
    context.terminal.out(
      options.format === 'json' ? json({ roots: roots.map(rootFacts) }) : text(),
    );
    return 0;
  });
}

function addAdd(root: Command, context: CommandContext): void {
  const command = addSettings(
    rootCommand(root, 'add', 'Distribute a new root that does not sign yet'),
    ['ca-key-algorithm'],
  )
    .description(
      'Add a root to the trust bundle. With the key of a signer in the file it can be activated later; without a file a new root is created. Prints its id.',
    )
    .argument('[file]', 'PEM file; - is standard input')
    .option(
      '--force',
      'Also a root that is not valid now, or ends before another of its name and key: proxies that try it first refuse all',
    );
  onRun(command, context, async (options, [file]) => {
    const { terminal } = context;
    const algorithm = await settingOf('ca-key-algorithm', options.flags, terminal);
    const pem =
      file === undefined ? undefined : Buffer.from(await readInput(String(file), terminal));
    const source = { algorithm, ...(pem && { pem }), force: options.given.force === true };
    const code = await tellId(options, terminal, (api, about, deps) =>
      api.addRoot(about, source, deps),
    );
    terminal.err(COPIES);
    return code;
  });
}

function addActivate(root: Command, context: CommandContext): void {
  const command = rootCommand(root, 'activate', 'Sign under an added root from now on')
    .description(
      'Sign with the signer of an added root from now on. Refused while an identity may not have that root yet. Prints its id.',
    )
    .argument(
      '[id]',
      'Of the signer or its root, or the beginning of one (default: the only one that has never signed)',
    )
    .option(
      '--overlap <duration>',
      'How long the root must have been distributed (default: a day, and until every workload has renewed)',
    )
    .option(
      '--force',
      'Also where identities or clients lack the root and will refuse peers with new certificates; lists them',
    );
  onRun(command, context, async (options, [id]) => {
    const which = {
      id: id as string | undefined,
      overlapMs: durationOf(options, 'overlap'),
      force: options.given.force === true,
    };
    return tellId(options, context.terminal, (api, about, deps) =>
      api.activateRoot(about, which, deps),
    );
  });
}

function addRetire(root: Command, context: CommandContext): void {
  const command = rootCommand(root, 'retire', 'Remove a root from the trust bundle')
    .description(
      'Remove a root from the trust bundle, and its signers. Refused while a valid certificate chains to it. Prints its id.',
    )
    .argument('[id]', 'Of the root, or the beginning of it')
    .option(
      '--force',
      'Also where certificates in use chain to it: their peers refuse them; never where the active signer chains to it',
    );
  onRun(command, context, async (options, [id]) => {
    const which = { id: id as string | undefined, force: options.given.force === true };
    return tellId(options, context.terminal, (api, about, deps) =>
      api.retireRoot(about, which, deps),
    );
  });
}

function rootCommand(root: Command, name: string, summary: string): Command {
  const command = addSettings(addState(withOutput(root.command(name))), [
    'root-trust-domains',
    'crypto',
  ]).summary(summary);
  return addSettingAs(command, 'trust-domain', {
    help: 'Trust domain, compared with that of the authority',
    default: "the authority's own",
  });
}

function durationOf({ given }: CommandOptions, name: string): number | undefined {
  return given[name] === undefined
    ? undefined
    : parseDuration(String(given[name]), `flag --${name}`);
}

async function tellId(
  options: CommandOptions,
  terminal: Terminal,
  work: (api: Roots, about: RootsOptions, deps: Parameters<Roots['addRoot']>[2]) => Promise<string>,
): Promise<number> {
  const id = await withRoots(options, terminal, work);
  terminal.out(options.format === 'json' ? json({ id }) : `${id}\n`);
  return 0;
}

async function withRoots<T>(
  options: CommandOptions,
  terminal: Terminal,
  work: (api: Roots, about: RootsOptions, deps: Parameters<Roots['addRoot']>[2]) => Promise<T>,
): Promise<T> {
  const engine = await loadEngine(await settingOf('crypto', options.flags, terminal));
  const api = await import('../authority/roots/roots');
  const { namedTrustDomain } = await import('../authority/roots/root-facts');
  return withState(options, terminal, async (store, dir, deps) => {
    // The authority is there already and knows what it is for; a flag is held against it.
    const named =
      options.flags['trust-domain'] === undefined ? await namedTrustDomain(dir) : undefined;
    const trustDomain = named ?? (await settingOf('trust-domain', options.flags, terminal));
    const rootTrustDomains = await readSetting('root-trust-domains', {
      flags: options.flags,
      env: terminal.env,
      cwd: terminal.cwd,
    });
    return work(api, { dir, trustDomain, rootTrustDomains, engine, store }, deps);
  });
}

/** Copies of root-cert.pem that no reply of the authority reaches. */
const COPIES = `keyturn: note: agents learn the root with their next certificate; add it to every copy of root-cert.pem before retire:
  on machines     /etc/keyturn/root-cert.pem (keyturn vm join), root-cert.pem in the directory of --prov-cert (PROV_CERT),
                  files of --ca-root (CA_ROOT_CA), --trust-bundle and --federated-bundle, also of istio-agent, Envoy and others
  in Kubernetes   ConfigMap istio-ca-root-cert of every namespace, ConfigMaps, Secrets and ClusterTrustBundles made from it,
                  Secret cacerts or keyturn-ca where the authority itself is mounted from one
  All roots:      keyturn ca bundle, or /bundle.pem of keyturn ca serve. Who lacks it: keyturn ca root list
`;

const STAGES: readonly RootStatus['stage'][] = ['active', 'ready', 'trusted'];
const HEAD = ['ROOT', 'STAGE', 'SUBJECT', 'UNTIL', 'IN USE', 'SIGNER', 'ACTIVATE FROM'];

function rootRow(root: RootStatus): string[] {
  const { id, stage, subject, notAfterAt, inUse, inUseUntil, signerId, activateAt } = root;
  const until =
    inUseUntil === undefined ? '' : `, until ${instant(iso(inUseUntil), systemClock.now())}`;
  const from = activateAt === undefined ? '' : instant(iso(activateAt), systemClock.now())!;
  return [
    id,
    stage,
    subject,
    iso(notAfterAt),
    `${counted(inUse, 'certificate')}${until}`,
    signerId ?? '',
    from,
  ];
}

/** Who holds `activate` back, an identity a line. */
function withoutItText({ id, withoutIt }: RootStatus): string {
  const lines = withoutIt.map((each) => {
    const until = instant(iso(each.untilAt), systemClock.now());
    return `  ${each.id}  ${counted(each.certificates, 'certificate')}, until ${until}\n`;
  });
  return lines.length === 0 ? '' : `\nRoot ${id} not received by:\n${lines.join('')}`;
}

function rootFacts(root: RootStatus): object {
  const { notAfterAt, inUseUntil, activateAt, withoutIt, ...facts } = root;
  return {
    ...facts,
    notAfter: iso(notAfterAt),
    ...(inUseUntil !== undefined && { inUseUntil: iso(inUseUntil) }),
    ...(activateAt !== undefined && { activateAt: iso(activateAt) }),
    ...(withoutIt.length > 0 && {
      withoutIt: withoutIt.map(({ untilAt, ...each }) => ({ ...each, until: iso(untilAt) })),
    }),
  };
}
