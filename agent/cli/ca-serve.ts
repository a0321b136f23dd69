import { type Command, Option } from 'commander';
import { AUTHENTICATORS, type AuthenticatorName } from '../authority/server/authenticator';
import { DEFAULT_LIVE_PER_IDENTITY, MAX_LIVE_PER_IDENTITY } from '../authority/server/limits';
import { invalid } from '../base/errors';
import { parseHostPort } from '../base/host-port';
import { compileAtOnce } from '../base/runtime';
import { readSetting } from '../config/load';
import type { SettingName } from '../config/options';
import { choice, duration, hostPort, trustDomain } from '../config/value-types';
import type { CaServiceConfig } from '../services/ca-service';
import { addState, readState } from './ca-state';
import { type CommandContext, type CommandOptions, onRun } from './command';
import { count, list, more, rate } from './flag-values';
import { addSettings, settingOf } from './settings-options';
import type { Terminal } from './terminal';

const SETTINGS: readonly SettingName[] = [
  'ca-key-algorithm',
  'trust-domain',
  'root-trust-domains',
  'crypto',
  'log-level',
  'log-format',
];
const MAX_TTL = duration({ atLeast: '1s', atMost: '3650d' });
/** Beyond that a machine is better joined again. */
const AFTER_EXPIRY = duration({ atLeast: '1s', atMost: '90d' });
/** Each takes memory as a server of its own. */
const LIVE = 'flag --max-live-certificates-per-identity';
const AUTHENTICATOR = choice(AUTHENTICATORS, 'name');

/** `keyturn ca serve`, below `keyturn ca`. */
export function addCaServe(ca: Command, context: CommandContext): void {
  const serve = ca
    .command('serve')
    .summary('Certify workloads over the network until a signal ends it')
    .description(
      "Serve the authority of a directory as istiod would (istio.v1.auth.IstioCertificateService over TLS), to keyturn, istio-agent and others, until SIGTERM or SIGINT. The directory's root-cert.pem is what clients trust it by.",
    )
    .addOption(
      new Option('--listen <host:port>', 'Address to serve certificate requests on').default(
        '127.0.0.1:15012',
      ),
    )
    .option(
      '--server-names <names>',
      'Hosts that clients call it by, with commas; the address of --listen is one anyway',
    )
    .addOption(
      new Option(
        '--authenticators <names>',
        `How clients may authenticate, with commas, in order of preference (${AUTHENTICATORS.join(', ')})`,
      ).default('client-certificate,join-token'),
    )
    .option('--oidc-issuer <url>', 'Issuer of accepted tokens; may be given again', more)
    .option('--jwks <place>', 'Keys of those issuers: a file, or an https URL')
    .option(
      '--jwks-ca <file>',
      "Roots that verify that URL's server (default: those of the runtime)",
    )
    .option(
      '--audience <name>',
      'Audience that a token must be for; may be given again (default: istio-ca)',
      more,
    )
    .option(
      '--trust-domain-aliases <names>',
      'Trust domains that name the same workloads, with commas',
    )
    .addOption(
      new Option(
        '--rate-per-identity <number>',
        'Calls a second that one identity may make; 0 is no limit',
      ).default('10'),
    )
    .addOption(
      new Option(
        '--rate-total <number>',
        'Calls a second that all may make together; 0 is no limit',
      ).default('1000'),
    )
    .addOption(
      new Option(
        '--max-ttl <duration>',
        'Maximum lifetime of a certificate; default lifetime is 24h, or this if less',
      ).default('90d'),
    )
    .option(
      '--renew-after-expiry <duration>',
      'How long after its end a registered certificate, the newest of its key and not revoked, is good for one renewal (default: not at all)',
    )
    .addOption(
      new Option(
        '--max-live-certificates-per-identity <number>',
        'Valid certificates, not revoked, that one identity may have',
      ).default(String(DEFAULT_LIVE_PER_IDENTITY)),
    )
    .option(
      '--audit-log <file>',
      'Where each decision is written, as a line of JSON (default: standard output)',
    )
    .addOption(
      new Option(
        '--admin-address <host:port>',
        'Where bundle, health and metrics are served over HTTP',
      ).default('127.0.0.1:15014'),
    );
  addSettings(addState(serve), SETTINGS).addHelpText(
    'after',
    `
Examples:
  keyturn ca serve --trust-domain example.org --listen 0.0.0.0:15012 --server-names ca.example.org
  keyturn ca token create --spiffe-id spiffe://example.org/db --ttl 1h
  keyturn ca serve --authenticators oidc --oidc-issuer https://issuer.example --jwks keys.json
  keyturn run --ca istiod --ca-address ca.example.org:15012 --ca-root root-cert.pem --token token`,
  );
  onRun(serve, context, (options) => serveCa(options, context.terminal));
}

async function serveCa(options: CommandOptions, terminal: Terminal): Promise<number> {
  const config = await readConfig(options, terminal);
  await checkPlaces(config);
  const setting = <N extends SettingName>(name: N) => settingOf(name, options.flags, terminal);
  const [{ runDaemon }, { startCaService }] = await Promise.all([
    import('./daemon'),
    import('../services/ca-service'),
  ]);
  const around = { env: terminal.env, writeAuditLine: terminal.write };
  compileAtOnce();
  return runDaemon(
    {
      name: 'ca server',
      scope: 'ca',
      logLevel: await setting('log-level'),
      logFormat: await setting('log-format'),
      facts: { trustDomain: config.trustDomain, dir: config.caDir },
      start: async (deps) => {
        const service = await startCaService(config, around, deps);
        deps.log.info('ca server started', {
          address: service.address,
          admin: service.adminAddress,
        });
        return service;
      },
    },
    terminal,
  );
}

/** What would stop the start anyway stops it before an authority is made. */
async function checkPlaces({
  listen,
  serverNames,
  oidc,
}: Pick<CaServiceConfig, 'listen' | 'serverNames' | 'oidc'>): Promise<void> {
  const { serverNamesOf } = await import('../authority/server-names');
  serverNamesOf(parseHostPort(listen, '--listen'), serverNames);
  if (!oidc) return;
  const { checkKeyPlace } = await import('../jwt/key-source');
  await checkKeyPlace(oidc);
}

async function readConfig(options: CommandOptions, terminal: Terminal) {
  const { given, flags } = options;
  const setting = <N extends SettingName>(name: N) => settingOf(name, flags, terminal);
  const text = (key: string) => given[key] as string | undefined;
  const authenticators = list(
    text('authenticators')!,
    'flag --authenticators',
    AUTHENTICATOR.parse,
  );
  return {
    listen: hostPort.parse(text('listen')!, 'flag --listen'),
    adminAddress: hostPort.parse(text('adminAddress')!, 'flag --admin-address'),
    ...(await readState(options, terminal)),
    caKeyAlgorithm: await setting('ca-key-algorithm'),
    engine: await setting('crypto'),
    trustDomain: await setting('trust-domain'),
    rootTrustDomains: await readSetting('root-trust-domains', {
      flags,
      env: terminal.env,
      cwd: terminal.cwd,
    }),
    aliases:
      text('trustDomainAliases') === undefined
        ? []
        : list(text('trustDomainAliases')!, 'flag --trust-domain-aliases', trustDomain.parse),
    // Which hosts there may be is the server's to say.
    serverNames:
      text('serverNames') === undefined
        ? []
        : list(text('serverNames')!, 'flag --server-names', (name) => name),
    authenticators,
    oidc: readOidc(given, authenticators),
    audiences: readAudiences(given, authenticators),
    rates: {
      perIdentity: rate(text('ratePerIdentity')!, 'flag --rate-per-identity'),
      total: rate(text('rateTotal')!, 'flag --rate-total'),
    },
    maxTtlSeconds: Math.floor(MAX_TTL.parse(text('maxTtl')!, 'flag --max-ttl') / 1_000),
    renewAfterExpiryMs:
      text('renewAfterExpiry') === undefined
        ? undefined
        : AFTER_EXPIRY.parse(text('renewAfterExpiry')!, 'flag --renew-after-expiry'),
    maxLivePerIdentity: count(text('maxLiveCertificatesPerIdentity')!, LIVE, MAX_LIVE_PER_IDENTITY),
    auditLog: text('auditLog'),
  };
}

/** Flags of an authenticator that is not asked would leave somebody believing that it is. */
function readOidc(given: CommandOptions['given'], authenticators: readonly AuthenticatorName[]) {
  const issuers = given.oidcIssuer as readonly string[] | undefined;
  const jwks = given.jwks as string | undefined;
  const wanted = authenticators.includes('oidc');
  const jwksCa = given.jwksCa as string | undefined;
  const flags = [
    issuers && 'flag --oidc-issuer',
    jwks && 'flag --jwks',
    jwksCa && 'flag --jwks-ca',
  ];
  const [field] = flags.filter((each) => each !== undefined);
  if (!wanted && field !== undefined)
    throw invalid('ERR_CONFIG', field, 'needs oidc among --authenticators');
  if (!wanted) return undefined;
  if (issuers === undefined)
    throw invalid('ERR_CONFIG', 'flag --authenticators', 'needs --oidc-issuer for oidc');
  if (jwks === undefined)
    throw invalid('ERR_CONFIG', 'flag --authenticators', 'needs --jwks for oidc');
  return { issuers, jwks, jwksCa };
}

function readAudiences(
  given: CommandOptions['given'],
  authenticators: readonly AuthenticatorName[],
): readonly string[] {
  const audiences = given.audience as readonly string[] | undefined;
  if (audiences === undefined) return ['istio-ca'];
  if (authenticators.includes('oidc') || authenticators.includes('token-review')) return audiences;
  throw invalid(
    'ERR_CONFIG',
    'flag --audience',
    'needs oidc or token-review among --authenticators',
  );
}
