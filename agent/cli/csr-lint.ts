import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import {
  LINT_BACKENDS,
  type LintBackend,
  type LintFacts,
  type LintFinding,
} from '../../ca-client/lint/lint-rule';
import { systemClock } from '../base/clock';
import { invalid } from '../base/errors';
import { readPem } from '../base/pem';
import { readSmallFile } from '../base/read-file';
import { loadConfig, readSetting } from '../config/load';
import { OPTIONS, type SettingName } from '../config/options';
import type { Flags } from '../config/sources';
import { loadEngine } from '../identity/load-engine';
import { formatSpiffeId } from '../identity/spiffe-id';
import { type CommandContext, onRun, withOutput } from './command';
import { EXIT_CODES } from './exit-code';
import { readInput } from './input';
import { json, table } from './render';
import { addSettings, settingOf } from './settings-options';
import type { Terminal } from './terminal';

const SETTINGS: readonly SettingName[] = [
  'ttl',
  'token',
  'cluster-id',
  'signer-name',
  'spiffe-id',
  'trust-domain',
  'namespace',
  'service-account',
  'key-algorithm',
  'crypto',
  'config',
];

/** With one of these flags, whom a request is for is held against them. */
const IDENTITY: readonly SettingName[] = [
  'spiffe-id',
  'trust-domain',
  'namespace',
  'service-account',
];

/** `keyturn csr lint`, below `keyturn csr`. */
export function addCsrLint(csr: Command, context: CommandContext): void {
  const lint = addSettings(withOutput(csr.command('lint')), SETTINGS)
    .summary('Lint a request by the rules of an authority')
    .description(
      'Say, without asking it, which rules of a certificate authority a request or its token would break. Exits 65 where there are errors; warnings alone are none.',
    )
    .argument(
      '[file]',
      'PEM file; - is standard input; without one, the request that keyturn run would make',
    )
    .addOption(
      new Option('--for <backend>', 'Who is to sign').choices(LINT_BACKENDS).makeOptionMandatory(),
    )
    .option('--issuer <url>', 'The issuer of tokens that the authority believes')
    .addHelpText(
      'after',
      '\nExamples:\n  keyturn csr lint --for istio-csr --ttl 24h cart.csr\n  keyturn csr lint --for istiod --token ./var/run/secrets/tokens/istio-token',
    );
  onRun(lint, context, async ({ format, given, flags }, [file]) => {
    const { terminal } = context;
    const { lintCsr } = await import('../../ca-client/lint/csr-lint');
    const backend = given.for as LintBackend;
    const { csrDer, pemLabels } =
      file === undefined
        ? { csrDer: await ownRequest(flags, terminal), pemLabels: undefined }
        : await readRequest(String(file), terminal);
    const facts: LintFacts = {
      now: systemClock.now(),
      ttlSeconds: Math.floor((await settingOf('ttl', flags, terminal)) / 1_000),
      pemLabels,
      token: await readToken(backend, await settingOf('token', flags, terminal), terminal),
      issuer: given.issuer as string | undefined,
      clusterId: await readSetting('cluster-id', { flags, env: terminal.env, cwd: terminal.cwd }),
      signerName: await readSetting('signer-name', { flags, env: terminal.env, cwd: terminal.cwd }),
      trustDomain: await settingOf('trust-domain', flags, terminal),
      id: IDENTITY.some((name) => flags[name] !== undefined)
        ? formatSpiffeId((await ownConfig(flags, terminal)).id!)
        : undefined,
    };
    const findings = lintCsr(csrDer, backend, facts);
    terminal.out(
      format === 'json' ? json({ for: backend, findings }) : findingsText(backend, findings),
    );
    return findings.some(({ severity }) => severity === 'error') ? EXIT_CODES.ERR_PARSE : 0;
  });
}

/** As the agent would have it; which authority the agent itself would ask plays no part. */
async function ownConfig(flags: Flags, terminal: Terminal) {
  return (
    await loadConfig({ flags: { ...flags, ca: 'builtin' }, env: terminal.env, cwd: terminal.cwd })
  ).config;
}

async function ownRequest(flags: Flags, terminal: Terminal): Promise<Uint8Array> {
  const config = await ownConfig(flags, terminal);
  const engine = await loadEngine(config.engine);
  return engine.createCsr(await engine.generateKeyPair(config.keyAlgorithm), config.id!);
}

/** The second is what Netscape and old tools write. */
const CSR_LABELS = ['CERTIFICATE REQUEST', 'NEW CERTIFICATE REQUEST'];

/** The first block: which authority takes what else is there is a rule of its own. */
async function readRequest(
  path: string,
  terminal: Terminal,
): Promise<{ csrDer: Uint8Array; pemLabels: readonly string[] }> {
  const field = path === '-' ? 'standard input' : path;
  const blocks = readPem(await readInput(path, terminal), field);
  // One of them may be a key, of which nothing is to stay.
  for (const { der } of blocks.slice(1)) der.fill(0);
  const [first] = blocks;
  if (!CSR_LABELS.includes(first!.label))
    throw invalid('ERR_PARSE', field, 'must begin with a CERTIFICATE REQUEST');
  return { csrDer: first!.der, pemLabels: blocks.map(({ label }) => label) };
}

/** The token that would be sent: also the one in its usual place, where there is one. The Kubernetes API is asked with another. */
async function readToken(
  backend: LintBackend,
  path: string,
  terminal: Terminal,
): Promise<LintFacts['token']> {
  const usual = path === OPTIONS.token.default;
  if (usual && (backend === 'kubernetes-csr' || !existsSync(resolve(terminal.cwd, path))))
    return undefined;
  const bytes = await readSmallFile(resolve(terminal.cwd, path), {
    field: `token ${path}`,
    code: 'ERR_INPUT',
  });
  const { readTokenClaims } = await import('../jwt/token-claims');
  return { claims: readTokenClaims(bytes.toString('latin1').trim()) };
}

function findingsText(backend: LintBackend, findings: readonly LintFinding[]): string {
  if (findings.length === 0) return `no rule of ${backend} is broken\n`;
  const rows = findings.map(({ severity, rule, detail, source }) => [
    severity,
    rule,
    detail,
    source,
  ]);
  return table([['SEVERITY', 'RULE', 'WHAT', 'WHOSE RULE'], ...rows]);
}
