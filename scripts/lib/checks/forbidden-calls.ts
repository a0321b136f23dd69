import { importsOf } from './imports';
import { codeOnly, isProgram, type SourceFile } from './source-files';

/** Measures how long something took, or yields to the loop; no decision of the program depends on it. */
const MEASURES = [
  'gauges.ts',
  'metrics.ts',
  'webhook-service.ts',
  'cli/inject.ts',
  'turn.ts',
  'grpc-server.ts',
  'istio/channel.ts',
  'call-deadline.ts',
];
const YIELDS = [
  'gauges.ts',
  'turn.ts',
  'terminal.ts',
  'acknowledgements.ts',
  'sds/server.ts',
  'ca-server.ts',
  'audit-log.ts',
  'batches.ts',
  'server-connection.ts',
];

/**
 * What only some places may touch, because everything else is handed it: time, chance, the process and its end. A home is a folder, with
 * all below it, or the end of a file's path.
 */
const RULES: readonly {
  readonly call: RegExp;
  readonly name: string;
  readonly homes: readonly string[];
}[] = [
  { call: /\bDate\.now\b/, name: 'Date.now', homes: ['agent/base/'] },
  {
    call: /\bnew Date\(\s*\)|(?<!\bnew )\bDate\b(?!\.(?:parse|UTC|now)\b)/,
    name: 'the Date of now',
    homes: ['agent/base/'],
  },
  { call: /\bperformance\b/, name: 'performance', homes: ['agent/base/', ...MEASURES] },
  { call: /\bhrtime\b/, name: 'hrtime', homes: ['agent/base/'] },
  { call: /\bsetTimeout\b/, name: 'setTimeout', homes: ['agent/base/'] },
  { call: /\bsetInterval\b/, name: 'setInterval', homes: ['agent/base/'] },
  { call: /\bsetImmediate\b/, name: 'setImmediate', homes: ['agent/base/', ...YIELDS] },
  { call: /\bAbortSignal\.timeout\b/, name: 'AbortSignal.timeout', homes: ['agent/base/'] },
  { call: /\bscheduler\b/, name: 'scheduler', homes: ['agent/base/'] },
  { call: /\bMath\.random\b|\bMath\b(?!\.)/, name: 'Math.random', homes: ['agent/base/'] },
  { call: /\b(?:randomInt|randomUUID|getRandomValues)\b/, name: 'chance', homes: ['agent/base/'] },
  {
    call: /\bprocess\.(?:exit|exitCode|abort|reallyExit)\b/,
    name: 'process.exit',
    homes: ['agent/main.ts'],
  },
  { call: /(?<![.\w])process\.kill\b/, name: 'process.kill', homes: ['agent/cli/daemon.ts'] },
  {
    call: /\bprocess\.std(?:in|out|err)\b/,
    name: 'process.stdout',
    homes: ['agent/cli/terminal.ts', 'agent/base/nonblocking-stderr.ts'],
  },
  {
    call: /=\s*process\b(?![.?\w])|(?<![.\w])process\[/,
    name: 'a part of process taken aside',
    homes: [],
  },
  { call: /\bglobalThis\[/, name: 'globalThis by a computed name', homes: [] },
];

/** Modules that hand out the same under other names. */
const MODULES = ['node:process', 'node:timers', 'node:timers/promises', 'node:perf_hooks'];

/** Uses outside their homes, each as `path:line: name belongs to homes`. */
export function checkForbiddenCalls(files: readonly SourceFile[]): string[] {
  return files.filter(isProgram).flatMap((file) => [
    ...codeOnly(file.text)
      .split('\n')
      .flatMap((line, index) =>
        RULES.filter((rule) => rule.call.test(line) && !isAt(file.path, rule.homes)).map(
          (rule) =>
            `${file.path}:${index + 1}: ${rule.name} belongs ${rule.homes.length === 0 ? 'nowhere' : `to ${rule.homes.join(', ')}`}`,
        ),
      ),
    ...importsOf(file)
      .filter((each) => MODULES.includes(each.to) && !isAt(file.path, ['agent/base/']))
      .map((each) => `${file.path}: ${each.to} belongs to agent/base/`),
  ]);
}

function isAt(path: string, homes: readonly string[]): boolean {
  return homes.some((home) =>
    home.endsWith('/') ? path.startsWith(home) : path === home || path.endsWith(`/${home}`),
  );
}
