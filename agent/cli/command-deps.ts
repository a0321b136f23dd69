import { systemClock } from '../base/clock';
import type { Deps } from '../base/deps';
import { createLogger } from '../base/log';
import { noMetrics } from '../base/metrics';
import { systemRandom } from '../base/random';
import type { Terminal } from './terminal';

/** What a command that works for a moment gives to those who expect a daemon's: warnings are told, events are not. */
export function commandDeps(terminal: Terminal): Deps {
  const log = createLogger({ level: 'warn', format: 'text', write: (line) => terminal.err(`${line}\n`), now: systemClock.now });
  return { clock: systemClock, random: systemRandom, metrics: noMetrics, log };
}
