import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import type { CaStore } from '../authority/store/store';
import { systemClock } from '../base/clock';
import type { Deps } from '../base/deps';
import { invalid } from '../base/errors';
import { createLogger } from '../base/log';
import { noMetrics } from '../base/metrics';
import { systemRandom } from '../base/random';
import { readSetting } from '../config/load';
import { segment } from '../config/value-types';
import { CA_STATES, type CaStateConfig } from '../services/open-ca-store';
import { asOwnerOf } from './as-owner';
import type { CommandOptions } from './command';
import { addSettings, settingOf } from './settings-options';
import type { Terminal } from './terminal';

/** Adds the flags by which a command finds an authority and its state. */
export function addState(command: Command): Command {
  return addSettings(command, ['ca-dir', 'kubeconfig', 'config'])
    .addOption(
      new Option('--state <where>', 'Where tokens, serials and revocations are kept')
        .choices(CA_STATES)
        .default('file'),
    )
    .option(
      '--namespace <name>',
      'Namespace of that state in Kubernetes (default: that of the kubeconfig or the pod)',
    );
}

/** @throws AgentError ERR_CONFIG. */
export async function readState(
  { given, flags }: CommandOptions,
  terminal: Terminal,
): Promise<CaStateConfig> {
  const state = given.state as CaStateConfig['state'];
  const namespace = given.namespace as string | undefined;
  if (namespace !== undefined && state !== 'kubernetes')
    throw invalid('ERR_CONFIG', 'flag --namespace', 'needs --state kubernetes');
  return {
    state,
    caDir: resolve(terminal.cwd, await settingOf('ca-dir', flags, terminal)),
    namespace: namespace === undefined ? undefined : segment.parse(namespace, 'flag --namespace'),
    kubeconfig: await readSetting('kubeconfig', { flags, env: terminal.env, cwd: terminal.cwd }),
  };
}

/** Works on an authority's state for a moment, also beside a server that runs on it, and for root as that server's user. */
export async function withState<T>(
  options: CommandOptions,
  terminal: Terminal,
  work: (store: CaStore, dir: string, deps: Deps) => Promise<T>,
): Promise<T> {
  const config = await readState(options, terminal);
  const deps = commandDeps(terminal);
  const { openCaStore } = await import('../services/open-ca-store');
  return asOwnerOf(config.caDir, async () => {
    const { store, close } = await openCaStore(config, terminal.env, deps);
    try {
      return await work(store, config.caDir, deps);
    } finally {
      await close();
    }
  });
}

/** What a command gives to those who expect a daemon's: warnings are told, events are not. */
export function commandDeps(terminal: Terminal): Deps {
  const log = createLogger({
    level: 'warn',
    format: 'text',
    write: (line) => terminal.err(`${line}\n`),
    now: systemClock.now,
  });
  return { clock: systemClock, random: systemRandom, metrics: noMetrics, log };
}
