import { systemClock } from '../../agent/base/clock';
import type { Deps } from '../../agent/base/deps';
import type { Facts, Logger, LogLevel } from '../../agent/base/log';
import { noMetrics } from '../../agent/base/metrics';

/** One logged event. */
export interface LogEvent {
  readonly level: LogLevel;
  readonly event: string;
  readonly facts: Facts;
}

/** Deps on the machine's clock that remember what was logged, in order. Give a `TestClock` where time is to stand still. */
export function testDeps(deps: Partial<Deps> = {}): Deps & { readonly events: LogEvent[] } {
  const events: LogEvent[] = [];
  const at =
    (level: LogLevel) =>
    (event: string, facts: Facts = {}) => {
      events.push({ level, event, facts });
    };
  const log: Logger = {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    scope: () => log,
    about: () => log,
  };
  return { clock: systemClock, random: () => 0.5, metrics: noMetrics, log, ...deps, events };
}
