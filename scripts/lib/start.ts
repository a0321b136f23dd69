import { createWriteStream, mkdirSync } from 'node:fs';
import { relative } from 'node:path';
import type { AgentStatus } from '../../agent/admin/agent-view';
import { callControl } from '../../agent/admin/control-client';
import { type LogEvent, startDaemon } from '../../test/support/daemon';
import { clockText, dateText, spanText } from './text';

const LOG = 'var/log/keyturn.log';
const STATE = ['--state-dir', './var/lib/keyturn/state'];

const options = process.argv.slice(2);
const has = (name: string) =>
  options.some((option) => option === name || option.startsWith(`${name}=`));
const say = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

void main();

async function main(): Promise<void> {
  await refuseSecond();
  mkdirSync('var/log', { recursive: true });
  const log = createWriteStream(LOG, { flags: 'a' });
  const agent = startDaemon({
    dir: process.cwd(),
    detached: true,
    identity: [],
    source: has('--ca') ? [] : ['--ca', 'builtin'],
    flags: [...STATE, '--log-level', 'info', '--admin-address', '127.0.0.1:15020', ...options],
    env: process.env as Record<string, string>,
    onLine: (line) => {
      log.write(`${line}\n`);
    },
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => void agent.kill('SIGTERM'));
  const waiting = setTimeout(() => say('waiting for the first certificate ...'), 2_000);
  const ready = await Promise.race([
    agent.ready().catch(() => undefined),
    agent.finished.then(() => undefined),
  ]);
  clearTimeout(waiting);
  if (ready) {
    introduce(ready);
    agent.onEvent(tell);
  }
  const end = await agent.finished;
  log.end();
  if (end.code === 0)
    return say('ended; the CA and the last certificate stay below var/lib/keyturn');
  explain(agent.events, agent.strayLines);
  process.exitCode = end.code ?? 1;
}

/** Says who is there already, instead of letting the new agent find its sockets taken. */
async function refuseSecond(): Promise<void> {
  const socket = './var/run/keyturn/control.sock';
  const running = has('--control-socket')
    ? undefined
    : await callControl<AgentStatus>(socket, 'GET', '/status').catch(() => undefined);
  if (!running) return;
  say(
    `keyturn is running here already, process ${running.pid}, for ${running.workloads.map((each) => each.id).join(', ')}`,
  );
  say('  look at it:  node_modules/.bin/node dist/keyturn status');
  say(`  end it:      kill ${running.pid}`);
  process.exit(1);
}

function introduce(status: AgentStatus): void {
  for (const workload of status.workloads) {
    const certificate = workload.certificate!;
    say('');
    say(`keyturn ${status.version} keeps ${workload.id}`);
    say(`  serial       ${certificate.serial}`);
    say(
      `  valid until  ${dateText(certificate.notAfter)}  (${spanText(status.now, certificate.notAfter)})`,
    );
    if (certificate.renewAt)
      say(
        `  renews at    ${dateText(certificate.renewAt)}  (in ${spanText(status.now, certificate.renewAt)})`,
      );
    say(`  SDS socket   ${relative(process.cwd(), workload.sds.socket) || workload.sds.socket}`);
    say(`  log          ${LOG}`);
  }
  say('');
  say('Next, from another terminal, in this directory:');
  say('  export PATH="$PWD/dist:$PWD/node_modules/.bin:$PATH"');
  say('  keyturn status                   what is served, until when, to whom');
  say('  keyturn plan                     why it renews when it does');
  say('  keyturn rotate                   rotate the key now');
  say('  keyturn secret get default       what an Envoy would get');
  say('  keyturn bootstrap                an Envoy bootstrap that uses this agent');
  say('Ctrl-C ends it.');
  say('');
}

/** A line for each event that a person watching wants to see. */
function tell(event: LogEvent): void {
  const at = clockText(event.time);
  if (event.event === 'certificate renewed') {
    say(
      `${at}  renewed: serial ${event.serial}, valid until ${clockText(event.notAfter)}, renews at ${clockText(event.renewAt)}`,
    );
  } else if (event.level === 'warn' || event.level === 'error') {
    say(
      `${at}  ${event.event}${event.cause ? `: ${event.cause}` : ''}${event.hint ? ` (${event.hint})` : ''}`,
    );
  }
}

/** Why the agent ended, from its last words. */
function explain(events: readonly LogEvent[], strayLines: readonly string[]): void {
  const last = events.filter((event) => event.level === 'error').at(-1);
  const words = last
    ? [
        `${last.event}${last.cause ? `: ${last.cause}` : ''}`,
        ...(last.hint ? [`hint: ${last.hint}`] : []),
      ]
    : [];
  for (const line of [...strayLines, ...words]) say(line);
  if ([...strayLines, ...words].some((line) => line.includes('15020')))
    say('another port does as well: scripts/start --admin-address 127.0.0.1:0');
}
