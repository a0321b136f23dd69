import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { systemClock } from '../base/clock';
import { AgentError } from '../base/errors';
import { iso } from '../base/iso';
import { readSmallFile } from '../base/read-file';
import { readSetting } from '../config/load';
import { certificatesPem, parseCertificate, parseRootBundle } from '../identity/certificate';
import { loadEngine } from '../identity/load-engine';
import { formatSpiffeBundle, type JwtKey } from '../identity/spiffe-bundle';
import { rootsToHandOut } from '../identity/valid-now';
import { asOwnerOf } from './as-owner';
import { commandDeps } from './ca-state';
import { type CommandContext, onRun, withOutput } from './command';
import { facts, instant, json } from './render';
import { addSettings, settingOf } from './settings-options';

/** `keyturn ca init` and `keyturn ca bundle`, below `keyturn ca`. */
export function addCaBundle(ca: Command, context: CommandContext): void {
  const init = addSettings(withOutput(ca.command('init')), [
    'ca-dir',
    'ca-key-algorithm',
    'trust-domain',
    'root-trust-domains',
    'crypto',
    'config',
  ])
    .summary('Create an authority, or check an existing one')
    .description(
      'Create a self-signed root in an empty directory, else check its files as ca serve would. Existing files are not changed.',
    );
  onRun(init, context, async ({ format, flags }) => {
    const { terminal } = context;
    const dir = resolve(terminal.cwd, await settingOf('ca-dir', flags, terminal));
    const trustDomain = await settingOf('trust-domain', flags, terminal);
    const rootTrustDomains = await readSetting('root-trust-domains', {
      flags,
      env: terminal.env,
      cwd: terminal.cwd,
    });
    const engine = await loadEngine(await settingOf('crypto', flags, terminal));
    const { openAuthority } = await import('../authority/authority');
    const rootAlgorithm = await settingOf('ca-key-algorithm', flags, terminal);
    const authority = await asOwnerOf(dir, () =>
      openAuthority(
        { dir, trustDomain, rootTrustDomains, rootAlgorithm, engine },
        commandDeps(terminal),
      ),
    );
    const { subject, keyAlgorithm, notAfterAt } = authority.describe();
    const about = {
      dir,
      trustDomain,
      signer: subject,
      keyAlgorithm,
      notAfter: iso(notAfterAt),
    };
    const roots = authority.trust.value.rootsDer.map((der) => parseCertificate(der, 'root').sha256);
    await authority.close();
    const text = () =>
      facts([
        ['directory', about.dir],
        ['trust domain', about.trustDomain],
        ['signer', about.signer],
        ['key', about.keyAlgorithm],
        ['signs until', instant(about.notAfter, systemClock.now())],
        ...roots.map((sha256) => ['root SHA-256', sha256] as const),
      ]);
    terminal.out(format === 'json' ? json({ ...about, rootsSha256: roots }) : text());
    return 0;
  });

  const bundle = addSettings(ca.command('bundle'), ['ca-dir', 'config'])
    .summary('Print the roots for other clusters and meshes')
    .description(
      'Print the trust bundle of this authority: PEM, or SPIFFE JSON for federation with its JWT-SVID keys. It holds valid roots only, and of several with one name and key the one that expires last.',
    )
    .addOption(
      new Option('--format <form>', 'Form of the bundle').choices(['pem', 'spiffe']).default('pem'),
    )
    .addHelpText('after', '\nExample:\n  keyturn ca bundle --format spiffe > example.org.json');
  onRun(bundle, context, async ({ given, flags }) => {
    const { terminal } = context;
    const dir = resolve(terminal.cwd, await settingOf('ca-dir', flags, terminal));
    const path = join(dir, 'root-cert.pem');
    const found = parseRootBundle(
      await readSmallFile(path, { field: path, code: 'ERR_INPUT' }),
      path,
    );
    if (found.skipped[0] !== undefined)
      throw new AgentError('ERR_CA_STATE', `read ${path}: ${found.skipped[0]}`);
    const roots = rootsToHandOut(found.bundle, systemClock.now());
    terminal.out(
      given.format === 'spiffe'
        ? json(
            formatSpiffeBundle({
              roots,
              jwtKeys: await jwtKeysOf(dir),
              refreshHintSeconds: REFRESH_SECONDS,
            }),
          )
        : certificatesPem(roots.rootsDer).toString('latin1'),
    );
    return 0;
  });
}

async function jwtKeysOf(dir: string): Promise<readonly JwtKey[]> {
  const { readPublishedKeys } = await import('../authority/jwt/published-keys');
  return readPublishedKeys(dir, systemClock.now());
}

/** How often others should look: long before a root that was added is signed under. */
const REFRESH_SECONDS = 3_600;
