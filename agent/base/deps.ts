import type { Clock } from './clock';
import type { Logger } from './log';
import type { Metrics } from './metrics';
import type { Random } from './random';

/** What every component is handed instead of reaching for globals; always the last argument of its constructor function. */
export interface Deps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
}
