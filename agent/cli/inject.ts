import { lstat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { AgentError } from '../base/errors';
import { resolveLinks } from '../base/open-directory';
import type { InjectedManifest, ObjectReport } from '../inject/inject-manifest';
import { type CommandContext, onRun } from './command';
import { more } from './flag-values';
import { addInjectFlags, readInjectFlags } from './inject-flags';
import { readInput } from './input';
import { OUTPUT_FORMATS, type OutputFormat, printable } from './report';
import type { Terminal } from './terminal';
import { writeNew } from './write-new';

/** `keyturn inject`. */
export function addInject(program: Command, context: CommandContext): void {
  const command = program
    .command('inject')
    .summary('Add the agent to Kubernetes manifests')
    .description(
      'Add the agent to the pods of Kubernetes manifests: Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob, List. Comments, order and all other objects stay as they are. Doing it again changes nothing; other flags change what was added.',
    )
    .requiredOption(
      '-f, --filename <file>',
      'Manifest, YAML or JSON; - is standard input; may be given again',
      more,
    )
    .option('--in-place', 'Write the files anew instead of printing them');
  addInjectFlags(command);
  const flagsToInject = command.options
    .map((each) => each.attributeName())
    .filter((name) => !['filename', 'inPlace'].includes(name));
  command
    .addOption(
      new Option('--remove', 'Take out everything that was added, instead').conflicts(
        flagsToInject,
      ),
    )
    .addOption(
      new Option('-o, --output <format>', 'Format of errors and reports on standard error')
        .choices(OUTPUT_FORMATS)
        .default('text'),
    )
    .addHelpText('after', HELP);
  onRun(command, context, async ({ format, given, flags }) => {
    const { terminal } = context;
    const options =
      given.remove === true ? 'remove' : await readInjectFlags(given, flags, terminal);
    const { injectManifest, MAX_MANIFEST_BYTES, manifestError } = await import(
      '../inject/inject-manifest'
    );
    const sources = await readSources(
      given.filename as readonly string[],
      given.inPlace === true,
      MAX_MANIFEST_BYTES,
      terminal,
    );
    const done: (Source & InjectedManifest)[] = [];
    const problems: AgentError[] = [];
    for (const source of sources) {
      try {
        const onProgress = format === 'json' ? undefined : progressTo(terminal, source.name);
        done.push({
          ...source,
          ...(await injectManifest(source.bytes, source.name, options, onProgress)),
        });
      } catch (caught) {
        problems.push(...each(AgentError.from(caught)));
      }
    }
    // Nothing is printed or written before everything has been judged.
    if (problems.length > 0) throw manifestError(problems);
    if (given.inPlace === true) await writeBack(done);
    else await terminal.write(joined(done.map(({ text }) => text)));
    for (const { name, reports } of done)
      for (const one of reports) terminal.err(told(name, one, format, given.remove === true));
    return 0;
  });
}

const HELP = `
Nothing of this shell's environment goes into a manifest; defaults may stand
in the file of --config. A pod with the label or annotation
keyturn.dev/inject: "false" is left alone.

Examples:
  keyturn inject -f app.yaml | kubectl apply -f -
  keyturn inject -f app.yaml --in-place --ca-address keyturn-ca.keyturn.svc:15012
  keyturn inject -f app.yaml --envoy envoyproxy/envoy:v1.36.0 --app 127.0.0.1:3000
  keyturn inject -f app.yaml --join envoy
  keyturn inject -f app.yaml --in-place --remove`;

interface Source {
  readonly path: string;
  /** How it is called: the path as it was given. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** Tells a person who waits how far it is, every two seconds. */
function progressTo(terminal: Terminal, name: string): (share: number) => void {
  let nextAt = performance.now() + PROGRESS_MS;
  return (share) => {
    if (performance.now() < nextAt) return;
    nextAt = performance.now() + PROGRESS_MS;
    terminal.err(`keyturn: ${printable(name)}: ${Math.floor(share * 100)} % done\n`);
  };
}

const PROGRESS_MS = 2_000;

async function readSources(
  paths: readonly string[],
  inPlace: boolean,
  maxBytes: number,
  terminal: Terminal,
): Promise<Source[]> {
  const twice = paths.find((path, index) => paths.indexOf(path) !== index);
  if (twice !== undefined)
    throw new AgentError('ERR_USAGE', `flag --filename: ${twice} is given twice`);
  if (inPlace && paths.includes('-'))
    throw new AgentError('ERR_USAGE', 'flag --in-place: standard input cannot be written anew');
  const sources: Source[] = [];
  for (const path of paths) {
    const name = path === '-' ? 'standard input' : path;
    sources.push({
      path: resolve(terminal.cwd, path),
      name,
      bytes: await readInput(path, terminal, maxBytes),
    });
  }
  return sources;
}

/** Only what has changed, each file whole or not at all; through links, to the file that they lead to. */
async function writeBack(manifests: readonly (Source & InjectedManifest)[]): Promise<void> {
  for (const { path, bytes, text } of manifests) {
    const after = Buffer.from(text);
    if (after.equals(bytes)) continue;
    const file = resolveLinks(path, { what: `write ${path}`, code: 'ERR_OUTPUT', of: 'links' });
    await writeNew(file, after, (await lstat(file)).mode & 0o777, true, 'links');
  }
}

/** Several texts as one stream of documents. */
function joined(texts: readonly string[]): string {
  const parts = texts.map((text, index) => {
    if (index === 0) return text;
    if (text.startsWith('%')) return `...\n${text}`;
    return /^(?:\s*#.*\n|\s*\n)*---(?:\s|$)/.test(text) ? text : `---\n${text}`;
  });
  return parts
    .map((text, index) =>
      index === parts.length - 1 || text === '' || text.endsWith('\n') ? text : `${text}\n`,
    )
    .join('');
}

function each(error: AgentError): readonly AgentError[] {
  return error.cause instanceof AggregateError ? error.cause.errors : [error];
}

const OUTCOMES: Readonly<Record<ObjectReport['outcome'], string>> = {
  injected: 'injected',
  removed: 'removed what was injected',
  unchanged: 'is up to date',
  'left-alone': 'left alone, as its keyturn.dev/inject says',
  'no-pod': 'unchanged: not a kind that inject supports',
};

function told(
  file: string,
  { object, outcome, notes }: ObjectReport,
  format: OutputFormat,
  isRemoval: boolean,
): string {
  if (format === 'json') return `${JSON.stringify({ file, object, outcome, notes })}\n`;
  const said =
    isRemoval && outcome === 'unchanged' ? 'has nothing that was injected' : OUTCOMES[outcome];
  const lines = [said, ...notes.map((note) => `note: ${note}`)];
  return lines.map((line) => `keyturn: ${printable(`${file} ${object}: ${line}`)}\n`).join('');
}
