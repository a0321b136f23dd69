import { writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { systemClock } from '../base/clock';
import { AgentError, oneError } from '../base/errors';
import { compile } from '../policy/compile';
import { evaluate, type Verdict } from '../policy/evaluate/evaluate';
import { formatProblem } from '../policy/resources/problem';
import type { JsonObject } from '../policy/resources/resource';
import { ResourceIndex } from '../policy/select';
import { type PolicyCase, readPolicyCases } from '../policy/test-cases';
import { type CommandContext, type CommandOptions, onRun, withOutput } from './command';
import { readInput } from './input';
import { readPolicyInput, withPolicies } from './policy-input';
import { bearer, givenToken, listenerAt, verifier } from './policy-request';
import { withLabels, workloadOf } from './policy-workload';
import { json } from './render';
import type { Terminal } from './terminal';

const FAILED = 1;

/** `keyturn policy test`, below `keyturn policy`. */
export function addPolicyTest(policy: Command, context: CommandContext): void {
  const command = withOutput(withLabels(withPolicies(policy.command('test'))))
    .summary('Hold policies to cases of what must be allowed and denied')
    .description(
      'Evaluate the requests of case files and compare. Prints what differs, and which rules no case touches. Exits 1 where a case fails, 65 for files that are wrong.',
    )
    .addOption(new Option('--cases <file...>', 'YAML with a list of cases').makeOptionMandatory())
    .option('--address <ip>', "The workload's address", '0.0.0.0')
    .option('--junit <file>', 'Write the results as JUnit XML too')
    .addHelpText(
      'after',
      `
A case: {name, from: spiffe://... or plain, to: PORT, method, path, host, headers, ip, sni,
jwt: a token or its claims, expect: allow|deny|401|ask, by: NAMESPACE/NAME}

Examples:
  keyturn policy test policies/ --policy-labels app=cart --cases cases.yaml`,
    );
  onRun(command, context, (options, [paths]) =>
    runCases(options, paths as readonly string[], context.terminal),
  );
}

interface Result {
  readonly name: string;
  readonly file: string;
  readonly line: number;
  readonly passed: boolean;
  /** What became of the request, and by which rule. */
  readonly got: string;
  readonly wanted: string;
}

async function runCases(
  options: CommandOptions,
  paths: readonly string[],
  terminal: Terminal,
): Promise<number> {
  const input = await readPolicyInput(options, paths, terminal);
  const workload = await workloadOf(options, input, terminal);
  const { listeners } = compile(new ResourceIndex(input.resources), workload, input.mesh);
  const cases = await casesOf(options.given.cases as readonly string[], terminal);
  const touched = new Set<string>();
  const known = new Set<string>();
  const results: Result[] = [];
  for (const each of cases) {
    const verdict = await verdictOf(listeners, each);
    for (const { rules } of verdict.filters)
      for (const { name, matched } of rules?.policies ?? []) {
        known.add(name);
        if (matched) touched.add(name);
      }
    results.push(resultOf(each, verdict));
  }
  const untouched = [...known].filter((name) => !touched.has(name)).sort();
  terminal.out(
    options.format === 'json' ? json({ results, untouched }) : textOf(results, untouched),
  );
  if (typeof options.given.junit === 'string')
    await writeFile(resolve(terminal.cwd, options.given.junit), junitOf(results));
  return results.every(({ passed }) => passed) ? 0 : FAILED;
}

/** @throws AgentError ERR_POLICY with everything that is wrong in the files. */
async function casesOf(files: readonly string[], terminal: Terminal): Promise<PolicyCase[]> {
  const all: PolicyCase[] = [];
  const wrong: AgentError[] = [];
  for (const file of files) {
    const bytes = await readInput(file, terminal);
    const { cases, problems } = readPolicyCases(file, Buffer.from(bytes).toString('utf8'));
    all.push(...cases);
    wrong.push(...problems.map((each) => new AgentError('ERR_POLICY', formatProblem(each))));
  }
  if (wrong.length === 0 && all.length === 0)
    wrong.push(
      new AgentError('ERR_POLICY', `${files.join(', ')}: no case`, {
        hint: 'write cases: [{from, to, expect}]',
      }),
    );
  if (wrong.length > 0) throw oneError('ERR_POLICY', wrong, `${wrong.length} problems in cases`);
  return all;
}

function verdictOf(listeners: readonly JsonObject[], each: PolicyCase): Promise<Verdict> {
  const { jwt, to, ...request } = each;
  const token =
    jwt === undefined ? undefined : givenToken(typeof jwt === 'string' ? jwt : JSON.stringify(jwt));
  return evaluate(
    listenerAt(listeners, to),
    {
      ...request,
      port: to,
      headers: [...request.headers, ...bearer(token)],
      localIp: undefined,
    },
    { verify: verifier(token), now: systemClock.now() / 1_000 },
  );
}

function resultOf(each: PolicyCase, verdict: Verdict): Result {
  const { kind, status, decidedBy } = verdict;
  const outcome = status === 401 ? '401' : kind === 'reset' ? 'deny' : kind;
  const by = /ns\[(.*)\]-policy\[(.*)\]-rule/.exec(decidedBy ?? '');
  const decider = by ? `${by[1]}/${by[2]}` : undefined;
  const shown = (what: string, policy: string | undefined) =>
    policy === undefined ? what : `${what} by ${policy}`;
  return {
    name: each.name,
    file: each.source.file,
    line: each.source.line,
    passed: outcome === each.expect && (each.by === undefined || each.by === decider),
    got: `${shown(outcome, decider)} (${verdict.reason})`,
    wanted: shown(each.expect, each.by),
  };
}

function textOf(results: readonly Result[], untouched: readonly string[]): string {
  const failed = results.filter(({ passed }) => !passed);
  return [
    ...failed.map(
      ({ name, file, line, got, wanted }) =>
        `FAILED ${file}:${line}: ${name}\n  expected ${wanted}\n  got ${got}\n`,
    ),
    ...untouched.map((name) => `no case matches ${name}\n`),
    `${results.length - failed.length} passed, ${failed.length} failed\n`,
  ].join('');
}

function junitOf(results: readonly Result[]): string {
  const failed = results.filter(({ passed }) => !passed).length;
  const cases = results.map(({ name, file, passed, got, wanted }) => {
    const attributes = `classname="${xml(file)}" name="${xml(name)}"`;
    return passed
      ? `  <testcase ${attributes}/>`
      : `  <testcase ${attributes}><failure message="${xml(`expected ${wanted}, got ${got}`)}"/></testcase>`;
  });
  return `<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="keyturn policy test" tests="${results.length}" failures="${failed}">
${cases.join('\n')}
</testsuite>
`;
}

function xml(text: string): string {
  return text
    .replace(/&/g, '&amp;')
    .replace(/</g, '&lt;')
    .replace(/"/g, '&quot;')
    .replace(/\p{Cc}/gu, ' ');
}
