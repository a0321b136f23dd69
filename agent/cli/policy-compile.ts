import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { AgentError, invalid } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import { type Compiled, compile } from '../policy/compile';
import { discover } from '../policy/discovery';
import { objectOf, objectsOf, textMapOf } from '../policy/resources/fields';
import type { JsonObject } from '../policy/resources/resource';
import { canonical, clusterSecurityOf, guardsOf, securityOf } from '../policy/security-view';
import { ResourceIndex } from '../policy/select';
import { staticBootstrap } from '../policy/static-bootstrap';
import type { PolicyWorkload } from '../policy/workload';
import { type CommandContext, type CommandOptions, onRun } from './command';
import { validateWithEnvoy } from './envoy-validate';
import { type PolicyInput, readPolicyInput, withPolicies } from './policy-input';
import { withLabels, workloadOf } from './policy-workload';
import type { Terminal } from './terminal';

/** `keyturn policy compile`, below `keyturn policy`. */
export function addPolicyCompile(policy: Command, context: CommandContext): void {
  const command = withLabels(withPolicies(policy.command('compile')))
    .summary('Print what policies become in Envoy')
    .description(
      'Compile policies to what istiod would have served one workload, or each of a list, and print it as JSON.',
    )
    .option('--address <ip>', 'Where listeners without an address are bound', '0.0.0.0')
    .option('--inline', 'Filters in their places, rather than served by ECDS')
    .addOption(
      new Option('--filters <port>', 'Only the filters that guard a port, in order').conflicts([
        'security',
        'nodes',
      ]),
    )
    .option('--validate <envoy>', 'Ask an Envoy, by its program, whether it takes what comes out')
    .option('--security', 'Only what decides which peers may connect and ask')
    .option(
      '--nodes <file>',
      'A workload a line, {"name","namespace","labels","sa"}; an answer a line',
    )
    .addHelpText(
      'after',
      `
Examples:
  keyturn policy compile policies/ --namespace shop --policy-labels app=cart
  keyturn policy compile policies/ --policy-labels app=cart --filters 8080`,
    );
  onRun(command, context, (options, [paths]) =>
    compilePolicies(options, paths as readonly string[], context.terminal),
  );
}

async function compilePolicies(
  options: CommandOptions,
  paths: readonly string[],
  terminal: Terminal,
): Promise<number> {
  const input = await readPolicyInput(options, paths, terminal);
  const index = new ResourceIndex(input.resources);
  const { given } = options;
  if (typeof given.nodes === 'string') {
    for (const node of await readNodes(resolve(terminal.cwd, given.nodes), given.nodes)) {
      const view = viewOf(compile(index, node, input.mesh), options, idOf(node));
      await terminal.write(`${JSON.stringify(view)}\n`);
    }
    return 0;
  }
  const compiled = compile(index, await workloadOf(options, input, terminal), input.mesh);
  if (typeof given.validate === 'string')
    await validateWithEnvoy(resolve(terminal.cwd, given.validate), staticBootstrap(compiled));
  const view =
    typeof given.filters === 'string'
      ? filtersAt(compiled, given.filters, input)
      : viewOf(compiled, options);
  terminal.out(`${JSON.stringify(view, null, 2)}\n`);
  return 0;
}

function viewOf(compiled: Compiled, { given }: CommandOptions, node?: string): unknown {
  if (given.security)
    return canonical({
      ...(node === undefined ? {} : { node }),
      listeners: compiled.listeners.map(securityOf),
      clusters: compiled.clusters.map(clusterSecurityOf),
      endpoints: [],
      secrets: [...compiled.secretNames].sort(),
    });
  const { listeners, extensions } = given.inline
    ? { listeners: compiled.listeners, extensions: [] }
    : discover(compiled);
  return {
    listeners,
    clusters: compiled.clusters,
    routes: [],
    endpoints: [],
    extensions,
    secretNames: compiled.secretNames,
  };
}

function filtersAt({ listeners }: Compiled, port: string, { resources }: PolicyInput): unknown {
  const listener = listeners.find(
    ({ address }) => String(objectOf(objectOf(address).socketAddress).portValue) === port,
  );
  const [chain] = objectsOf(listener?.filterChains);
  if (chain) return canonical(guardsOf(chain).filters);
  const sidecar = resources.some(({ kind }) => kind === 'Sidecar');
  throw new AgentError('ERR_POLICY', `port ${port}: no listener`, {
    hint: sidecar
      ? 'a Sidecar that selects the workload must list the port under spec.ingress'
      : 'add a Sidecar with the port under spec.ingress, captureMode: NONE',
  });
}

interface Node extends PolicyWorkload {
  readonly name: string;
}

/** @throws AgentError ERR_INPUT naming the line. */
async function readNodes(path: string, name: string): Promise<Node[]> {
  const bytes = await readSmallFile(path, {
    field: name,
    code: 'ERR_INPUT',
    maxBytes: MAX_NODES_BYTES,
  });
  const lines = bytes.toString('utf8').split('\n');
  return lines.flatMap((line, index) =>
    line.trim() === '' ? [] : [nodeOf(line, `${name}:${index + 1}`)],
  );
}

/** What istiod calls a sidecar. */
function idOf({ name, namespace, address }: Node): string {
  return `sidecar~${address}~${name}.${namespace}~${namespace}.svc.cluster.local`;
}

const MAX_NODES_BYTES = 64 << 20;
/** What a node without an address has where it is compared with another compiler's. */
const NODE_ADDRESS = '192.0.2.1';

function nodeOf(line: string, where: string): Node {
  const node = parsed(line, where);
  return {
    name: String(node.name ?? 'app'),
    namespace: String(node.namespace ?? 'default'),
    labels: textMapOf(node.labels),
    address: String(node.ip ?? NODE_ADDRESS),
  };
}

function parsed(line: string, where: string): JsonObject {
  try {
    return objectOf(JSON.parse(line));
  } catch (cause) {
    throw invalid('ERR_INPUT', where, 'must be a JSON object', { cause });
  }
}
