import { Command, CommanderError } from 'commander';
import { AgentError } from '../base/errors';
import { VERSION } from '../base/version';
import { SETTING_NAMES } from '../config/options';
import { type CommandContext, onRun } from './command';
import { refuseDangerousSurroundings } from './environment';
import { EXIT_CODES } from './exit-code';
import { type OutputFormat, report } from './report';
import { addSettings, ENVIRONMENT_HELP } from './settings-options';
import type { Terminal } from './terminal';

/** Lines of help fit a usual screen and stay readable on a wide one. */
const HELP_COLUMNS = 100;

/**
 * Runs one command line to its end. Answers go to standard output, everything else to standard error.
 *
 * @param argv  Without the runtime and the program.
 * @returns     The exit code; it never rejects.
 */
export async function runCommandLine(argv: readonly string[], terminal: Terminal): Promise<number> {
  let format: OutputFormat = 'text';
  let exitCode = 0;
  const done = (code: number) => {
    exitCode = code;
  };
  const context = { terminal, done };
  const program = createProgram(context).hook('preAction', (_, command) => {
    if (command.opts().output === 'json') format = 'json';
    refuseDangerousSurroundings(terminal);
  });
  // A start waits for no other command, nor for help on them: they cost it 5 ms, and the agent their memory.
  if (argv[0] !== 'run') (await import('./commands')).addCommands(program, context);
  try {
    await program.parseAsync(plainHelp(argv), { from: 'user' });
    return exitCode;
  } catch (caught) {
    if (caught instanceof CommanderError) return endOfParsing(caught, terminal);
    return report(AgentError.from(caught), format, terminal);
  }
}

/** `help secret get` as `secret get --help`: commander's own help command knows one level only. */
function plainHelp(argv: readonly string[]): readonly string[] {
  return argv[0] === 'help' && argv.length > 2 ? [...argv.slice(1), '--help'] : argv;
}

/** The tree of commands with `run` alone; `addCommands` adds the others. */
export function createProgram(context: CommandContext): Command {
  const program = configure(new Command('keyturn'), context.terminal)
    .description(
      "Keeps an Envoy's SPIFFE identity fresh: makes its key, has it certified, serves both over SDS, and rotates them long before expiry.",
    )
    .version(`keyturn ${VERSION}`, '-V, --version', 'Print the version')
    .addHelpText('after', EXAMPLES);
  program.commandsGroup('The agent:');
  addRun(program, context);
  return program;
}

const EXAMPLES = `
Examples:
  keyturn run --ca builtin        start an agent with an authority of its own
  keyturn run --ca istiod         ask istiod, or an authority of keyturn ca serve
  keyturn status                  show certificates, expiry and SDS clients
  keyturn rotate --wait           rotate the key now, and wait until every Envoy has it
  keyturn help run                every setting of the agent

Exit codes are those of sysexits: 64 usage, 69 no agent answers,
75 try again later, 78 settings.`;

function configure(program: Command, terminal: Terminal): Command {
  const width = () => Math.min(terminal.columns, HELP_COLUMNS);
  return program
    .exitOverride()
    .configureOutput({
      writeOut: terminal.out,
      writeErr: terminal.err,
      getOutHelpWidth: width,
      getErrHelpWidth: width,
      getOutHasColors: () => false,
      getErrHasColors: () => false,
      // Errors are reported in one place, in one form.
      outputError: () => undefined,
    })
    .configureHelp({
      subcommandTerm: (command) =>
        [
          command.name(),
          ...command.registeredArguments.map((each) =>
            bracketed(each.name(), each.required, each.variadic),
          ),
        ].join(' '),
    })
    .helpOption('-h, --help', 'Show this help')
    .showSuggestionAfterError();
}

function bracketed(name: string, required: boolean, variadic: boolean): string {
  const shown = variadic ? `${name}...` : name;
  return required ? `<${shown}>` : `[${shown}]`;
}

function addRun(program: Command, context: CommandContext): void {
  const command = addSettings(program.command('run'), SETTING_NAMES, true)
    .summary('Run the agent until a signal ends it')
    .description(
      'Run the agent: keep a certificate for one identity, or for each of a list, and serve it over SDS until SIGTERM or SIGINT. SIGHUP rotates the key at once, or reads the list again.',
    )
    .addHelpText(
      'after',
      `
${ENVIRONMENT_HELP}

Examples:
  keyturn run --ca builtin --trust-domain example.org --namespace shop --service-account cart
  keyturn run --ca builtin --ttl 1h --output-certs ./etc/certs
  keyturn run --ca istiod --ca-address istiod.istio-system.svc:15012
  keyturn run --ca istiod,builtin --ca-address ca.example.org:15012 --ca-root root-cert.pem
  keyturn run --ca kubernetes-csr --signer-name clusterissuers.cert-manager.io/istio-ca
  keyturn run --ca file --credential-bundle bundle.pem --trust-bundle roots.pem
  keyturn run --config keyturn.yaml
  keyturn run --ca builtin --workloads ./workloads
  FILE_MOUNTED_CERTS=true keyturn run`,
    );
  onRun(command, context, async ({ flags }) =>
    (await import('./run')).run(flags, context.terminal),
  );
}

/** Commander ends its parsing by throwing: after help and version all is well, else the command line was wrong. */
function endOfParsing(error: CommanderError, terminal: Terminal): number {
  if (error.exitCode === 0) return 0;
  // Help that was not asked for has been printed: a command was missing.
  if (error.code === 'commander.help') return EXIT_CODES.ERR_USAGE;
  const [, message, nearest] = /^(?:error: )?(.*?)(?:\n\(Did you mean (.*)\?\))?$/s.exec(
    error.message,
  )!;
  const hint =
    nearest === undefined
      ? '`keyturn --help` shows the commands, `keyturn help COMMAND` explains one'
      : `did you mean ${nearest}?`;
  return report(new AgentError('ERR_USAGE', message!, { hint }), 'text', terminal);
}
