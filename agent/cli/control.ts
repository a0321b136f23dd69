import type { Command } from 'commander';
import type {
  AgentStatus,
  AuthorityStatus,
  RotateResult,
  StreamStatus,
  WorkloadStatus,
} from '../admin/agent-view';
import type { PlanAnswer, RotateRequest } from '../admin/control-server';
import { parseDuration } from '../base/duration';
import { ANSWER_MS, askAgent } from './ask-agent';
import { type CommandContext, type CommandOptions, onRun, withOutput } from './command';
import { counted, facts, instant, json, table } from './render';
import { addSettings } from './settings-options';

/** `keyturn status`. */
export function addStatus(program: Command, context: CommandContext): void {
  const command = controlCommand(program, 'status')
    .summary('Show certificates, expiry and SDS clients')
    .description(
      'Show the certificates that the running agent keeps, when they are renewed, and what each SDS stream has acknowledged. Exits 75 while the agent is not ready.',
    );
  onRun(command, context, async (options) => {
    const status = await askAgent<AgentStatus>(
      options,
      context.terminal,
      'GET',
      `/status${query(options)}`,
    );
    context.terminal.out(options.format === 'json' ? json(status) : statusText(status));
    return status.ready ? 0 : 75;
  });
}

/** `keyturn plan`. */
export function addPlan(program: Command, context: CommandContext): void {
  const command = controlCommand(program, 'plan')
    .summary('Why it renews when it does')
    .description(
      'Show when each certificate will be renewed, and the reasons, most decisive first.',
    );
  onRun(command, context, async (options) => {
    const plan = await askAgent<PlanAnswer>(
      options,
      context.terminal,
      'GET',
      `/plan${query(options)}`,
    );
    context.terminal.out(
      options.format === 'json'
        ? json(plan)
        : plan.workloads.map((each) => planText(each, plan.now)).join('\n'),
    );
    return 0;
  });
}

/** `keyturn rotate`. */
export function addRotate(program: Command, context: CommandContext): void {
  const command = controlCommand(program, 'rotate')
    .summary('Rotate the key now')
    .description('Create a new key and certificate now, ahead of schedule.')
    .option('--wait', 'Return only when every SDS stream has acknowledged the new certificate')
    .option('--timeout <duration>', 'How long that may take', '30s')
    .addHelpText(
      'after',
      '\nExamples:\n  keyturn rotate\n  keyturn rotate --wait --timeout 10s && echo every Envoy has it',
    );
  onRun(command, context, async (options) => {
    const timeoutMs = parseDuration(String(options.given.timeout), 'flag --timeout');
    const workload = workloadOf(options);
    const request: RotateRequest = {
      wait: options.given.wait === true,
      timeoutMs,
      reason: 'keyturn rotate',
      ...(workload !== undefined && { workload }),
    };
    const result = await askAgent<RotateResult>(
      options,
      context.terminal,
      'POST',
      '/rotate',
      request,
      timeoutMs + ANSWER_MS,
    );
    context.terminal.out(options.format === 'json' ? json(result) : rotatedAllText(result));
    return result.failed ? 75 : 0;
  });
}

function controlCommand(program: Command, name: string): Command {
  const command = withOutput(program.command(name)).option(
    '--workload <name>',
    'One of many workloads (default: all)',
  );
  return addSettings(command, ['control-socket', 'config']);
}

function workloadOf({ given }: CommandOptions): string | undefined {
  return given.workload === undefined ? undefined : String(given.workload);
}

function query(options: CommandOptions): string {
  const workload = workloadOf(options);
  return workload === undefined ? '' : `?workload=${encodeURIComponent(workload)}`;
}

function statusText(status: AgentStatus): string {
  const ready = status.ready ? 'ready' : `not ready: ${status.reasons.join('; ')}`;
  const head = `keyturn ${status.version}, process ${status.pid}, ${status.runtime}, started ${instant(status.startedAt, status.now)}\n${ready}\n`;
  const { workloads, refused = [] } = status;
  const shown =
    workloads.length > 1
      ? [workloadsTable(workloads, status.now)]
      : workloads.map((each) => workloadText(each, status.now));
  return [head, ...shown, ...(refused.length > 0 ? [refusedText(refused)] : [])].join('\n');
}

/** Of many a line each; `--workload` shows one with all that is known. */
function workloadsTable(workloads: readonly WorkloadStatus[], now: string): string {
  const rows = workloads.map(({ name, id, state, certificate, lastError, sds }) => [
    name,
    id,
    lastError && state !== 'current' ? `${state}: ${lastError.message}` : state,
    certificate?.serial.slice(0, 12),
    instant(certificate?.notAfter, now),
    sds.streams.length,
  ]);
  return table([['NAME', 'ID', 'STATE', 'SERIAL', 'VALID UNTIL', 'STREAMS'], ...rows], '');
}

function refusedText(refused: NonNullable<AgentStatus['refused']>): string {
  const rows = refused.map(({ name, file, message, inService }) => [
    name ?? file,
    inService ? 'an earlier version is in service' : 'not in service',
    message,
  ]);
  return table([['REFUSED', '', 'BECAUSE'], ...rows], '');
}

function workloadText(workload: WorkloadStatus, now: string): string {
  const { certificate, outageBudget, sourceProblem, lastError, output, sds } = workload;
  const rows = facts(
    [
      ['state', workload.state],
      ['serial', certificate?.serial],
      ['key', certificate?.keyAlgorithm],
      ['issuer', certificate?.issuer],
      ['signed by', certificate?.signedBy],
      ['valid from', instant(certificate?.notBefore, now)],
      ['valid until', instant(certificate?.notAfter, now)],
      ['renews at', instant(certificate?.renewAt, now)],
      ['tries again', instant(workload.retryAt, now)],
      [
        'source',
        `${workload.source}: ${counted(workload.renewals, 'certificate')} in ${counted(workload.attempts, 'attempt')}, ${counted(workload.failures, 'failure')} since the last`,
      ],
      ...(workload.authorities ?? []).map((each) => ['CA', authorityText(each, now)] as const),
      ...(certificate?.warnings ?? []).map((warning) => ['warning', warning] as const),
      [
        'CA problem',
        sourceProblem &&
          `${sourceProblem.message} (${sourceProblem.code}); what was good before is still in use`,
      ],
      ['self-check', workload.selfCheck?.message],
      ['hint', workload.selfCheck?.hint],
      [
        'last error',
        lastError && `${lastError.message} (${lastError.code}, ${instant(lastError.at, now)})`,
      ],
      ['hint', lastError?.hint],
      [
        'without CA',
        outageBudget &&
          `lasts until ${instant(outageBudget.until, now)}, limited by ${outageBudget.limit}`,
      ],
      ...workload.roots.map((root) => ['root', rootText(root, now)] as const),
      ['revocation', workload.revocation && revocationText(workload.revocation, now)],
      ...(workload.federated ?? []).map((each) => ['federated', federatedText(each)] as const),
      ['files', output && `${output.dir}${output.error === undefined ? '' : `: ${output.error}`}`],
      [
        'SDS socket',
        `${sds.socket} (mode ${sds.mode})${sds.problem === undefined ? '' : `: ${sds.problem}`}`,
      ],
      ['SDS streams', sds.streams.length],
      ['Workload API', sds.workloadApiStreams && counted(sds.workloadApiStreams, 'stream')],
      ...sds.unknownNames.map(
        (each) =>
          ['unknown name', `${each.name} (asked for ${counted(each.count, 'time')})`] as const,
      ),
    ],
    '  ',
  );
  const streams =
    sds.streams.length === 0
      ? ''
      : `\n${table([STREAM_HEAD, ...sds.streams.flatMap((each) => streamRows(each, now))], '  ')}`;
  return `${titleOf(workload)}\n${rows}${streams}`;
}

function rootText(
  { subject, sha256, notAfter, withheld }: WorkloadStatus['roots'][number],
  now: string,
): string {
  const served = withheld === undefined ? '' : `; not served: ${withheld}`;
  return `${subject || sha256.slice(0, 16)}, until ${instant(notAfter, now)}${served}`;
}

function federatedText({
  trustDomain,
  roots,
  problem,
}: NonNullable<WorkloadStatus['federated']>[number]): string {
  const known = roots === undefined ? 'no data yet' : counted(roots, 'root');
  return `${trustDomain}: ${known}${problem === undefined ? '' : `; ${problem.message}`}`;
}

function revocationText(
  { lists, revoked, nextUpdate, problem }: NonNullable<WorkloadStatus['revocation']>,
  now: string,
): string {
  const until = nextUpdate === undefined ? '' : `, until ${instant(nextUpdate, now)}`;
  return `${counted(lists, 'list')}, ${counted(revoked, 'serial number')}${until}${problem === undefined ? '' : `; ${problem.message}`}`;
}

function authorityText(authority: AuthorityStatus, now: string): string {
  const { name, active, breaker, probeAt, excluded, signed, failed, lastError } = authority;
  const asked =
    excluded ??
    (probeAt === undefined ? breaker : `${breaker}, asked again at ${instant(probeAt, now)}`);
  const said = lastError === undefined ? '' : `; last error: ${lastError.message}`;
  return `${name}${active ? ' (in use)' : ''}: ${asked}, ${counted(signed, 'certificate')}, ${counted(failed, 'failure')}${said}`;
}

const STREAM_HEAD = ['STREAM', 'KIND', 'NODE', 'NAME', 'SENT', 'SERIAL', 'ACKNOWLEDGED'];

function streamRows(stream: StreamStatus, now: string): (string | number | undefined)[][] {
  const names = stream.names.length === 0 ? [undefined] : stream.names;
  return names.map((name) => [
    stream.id,
    stream.kind,
    stream.node,
    name?.name,
    name?.sentVersion?.slice(0, 12),
    name?.sentSerial?.slice(0, 12),
    name && acknowledgedText(name, now),
  ]);
}

function acknowledgedText(name: StreamStatus['names'][number], now: string): string {
  if (name.nack && name.nack.version === name.sentVersion) return `REFUSED: ${name.nack.message}`;
  if (name.sentVersion === undefined) return 'no response sent yet';
  return name.acknowledgedVersion === name.sentVersion
    ? (instant(name.acknowledgedAt, now) ?? 'yes')
    : 'not yet';
}

function planText(workload: PlanAnswer['workloads'][number], now: string): string {
  const { certificate, outageBudget, lastError } = workload;
  const head = facts(
    [
      ['state', workload.state],
      ['valid from', instant(certificate?.notBefore, now)],
      ['received at', instant(certificate?.receivedAt, now)],
      ['renews at', instant(certificate?.renewAt, now)],
      ['valid until', instant(certificate?.notAfter, now)],
      ['tries again', instant(workload.retryAt, now)],
      ['last error', lastError?.message],
      [
        'without CA',
        outageBudget &&
          `lasts until ${instant(outageBudget.until, now)}, limited by ${outageBudget.limit}`,
      ],
    ],
    '  ',
  );
  const steps = table(
    workload.plan.map((step) => [
      step.at === undefined ? '' : instant(step.at, now),
      step.rule,
      step.detail,
    ]),
    '  ',
  );
  return `${titleOf(workload)}\n${head}\n${steps}`;
}

function titleOf({ name, id }: { readonly name?: string; readonly id: string }): string {
  return name === undefined ? id : `${name} (${id})`;
}

function rotatedAllText({ workloads, failed = [] }: RotateResult): string {
  return [
    ...workloads.map(rotatedText),
    ...failed.map((each) => `${titleOf(each)}\n  failed: ${each.message}\n`),
  ].join('\n');
}

function rotatedText(workload: RotateResult['workloads'][number]): string {
  const rows = facts(
    [
      ['serial', workload.serial],
      ['was', workload.previousSerial],
      ['valid until', `${workload.notAfter.slice(0, 19).replace('T', ' ')}Z`],
      [
        'acknowledged by',
        workload.acknowledged === undefined
          ? undefined
          : counted(workload.acknowledged, 'SDS stream'),
      ],
    ],
    '  ',
  );
  return `${titleOf(workload)}\n${rows}`;
}
