import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { systemClock } from '../base/clock';
import { AgentError, invalid, systemCode } from '../base/errors';
import { iso } from '../base/iso';
import { readSmallFile } from '../base/read-file';
import { replaceFiles } from '../base/replace-files';
import { readSettings, settingsError } from '../config/load';
import { editSettingsFile, MAX_FILE_BYTES, parseSettingsFile } from '../config/settings-file';
import { parseRootBundle } from '../identity/certificate';
import { type CommandContext, type CommandOptions, onRun, withOutput } from './command';
import { checkNotExpired, type JoinFile, MAX_JOIN_FILE_BYTES, parseJoinFile } from './join-file';
import { counted, facts, instant, json } from './render';
import type { Terminal } from './terminal';

/** Where the agent of a machine finds what is its own: as the package and its units have it. */
const SETTINGS = '/etc/keyturn/keyturn.yaml';
const ROOTS = '/etc/keyturn/root-cert.pem';
/** systemd looks here for LoadCredential, as root; the agent sees a copy that nobody else can read. @see systemd.exec(5) */
const TOKEN = '/etc/credstore/keyturn.join-token';

/** `keyturn vm join`, below `keyturn vm`. */
export function addVmJoin(vm: Command, context: CommandContext): void {
  const command = withOutput(vm.command('join'))
    .argument('<file>', 'Join file of keyturn vm bundle')
    .summary('Join an authority by its join file')
    .description(
      `Take in the file of keyturn vm bundle, as root: the settings go to ${SETTINGS}, the roots to ${ROOTS}, the token to ${TOKEN}. The file is validated first; then all of it is written or nothing. Remove the file afterwards.`,
    )
    .option('--replace', 'Give a machine that has joined already another identity or authority')
    .addOption(
      new Option(
        '--root <dir>',
        'Root directory of another system, such as an image that is being made',
      ).default('/'),
    )
    .addHelpText('after', '\nExample:\n  keyturn vm join db.join && systemctl restart keyturn');
  onRun(command, context, (options, [file]) =>
    joinMachine(options, String(file), context.terminal),
  );
}

async function joinMachine(
  { given, format }: CommandOptions,
  path: string,
  terminal: Terminal,
): Promise<number> {
  const from = resolve(terminal.cwd, path);
  const file = parseJoinFile(
    await readSmallFile(from, {
      field: 'join file',
      code: 'ERR_INPUT',
      maxBytes: MAX_JOIN_FILE_BYTES,
    }),
  );
  checkNotExpired(file, systemClock.now());
  const at = (place: string) => join(resolve(terminal.cwd, String(given.root)), place);
  const settings = await joinedSettings(file, at(SETTINGS), given.replace === true);
  // What counts comes last: roots and a token without settings that lead to them change nothing.
  await replaceFiles([
    { path: at(ROOTS), bytes: file.rootsPem, mode: 0o644 },
    {
      path: at(TOKEN),
      bytes: Buffer.from(`${file.token.reveal()}\n`),
      mode: 0o600,
      directoryMode: 0o700,
    },
    { path: at(SETTINGS), bytes: settings, mode: 0o644 },
  ]);
  terminal.out(answer(file, at, format === 'json'));
  return 0;
}

/**
 * The machine's settings with those of the file among them, judged as `keyturn run` would.
 *
 * @throws AgentError ERR_CONFIG naming what is wrong, or already there.
 */
async function joinedSettings(file: JoinFile, path: string, replace: boolean): Promise<Buffer> {
  const old = await readOwnSettings(path);
  const origin = `file ${path}`;
  const wanted = {
    ca: 'istiod',
    'ca-address': file.caAddress,
    'ca-server-name': file.caServerName,
    'ca-root': ROOTS,
    'spiffe-id': file.spiffeId,
  };
  const before = new Map(
    (await parseSettingsFile(old, origin)).map(({ key, text }) => [key, text]),
  );
  const other = Object.entries(wanted).find(
    ([key, value]) => before.has(key) && before.get(key) !== value,
  );
  if (other !== undefined && !replace) {
    const [key, value] = other;
    throw invalid(
      'ERR_CONFIG',
      `${origin}: ${key}`,
      `is ${before.get(key)} already, and the join file has ${value ?? 'none'}`,
      {
        hint: 'nothing was changed; --replace gives this machine the identity and authority of the join file',
      },
    );
  }
  const settings = await editSettingsFile(old, wanted, origin);
  const { problems } = await readSettings({
    flags: { config: path },
    env: {},
    cwd: '/',
    readFile: async () => settings,
  });
  if (problems.length > 0) throw settingsError(problems);
  return settings;
}

async function readOwnSettings(path: string): Promise<Buffer> {
  try {
    return await readSmallFile(path, { field: path, code: 'ERR_CONFIG', maxBytes: MAX_FILE_BYTES });
  } catch (caught) {
    const error = AgentError.from(caught);
    if (systemCode(error.cause) !== 'ENOENT') throw error;
    throw new AgentError('ERR_CONFIG', error.message, {
      hint: 'install keyturn on this machine first: its package brings that file',
    });
  }
}

function answer(file: JoinFile, at: (place: string) => string, asJson: boolean): string {
  const { bundle } = parseRootBundle(file.rootsPem, 'roots');
  const expiresAt = iso(file.expiresAt);
  const files = [ROOTS, TOKEN, SETTINGS].map(at);
  if (asJson)
    return json({
      spiffeId: file.spiffeId,
      caAddress: file.caAddress,
      roots: bundle.rootsDer.length,
      expiresAt,
      files,
    });
  return facts([
    ['identity', file.spiffeId],
    ['authority', `${file.caAddress}, by ${counted(bundle.rootsDer.length, 'root')}`],
    ['token good until', instant(expiresAt, systemClock.now())],
    ['written', files.join(', ')],
    ['next', 'systemctl restart keyturn'],
  ]);
}
