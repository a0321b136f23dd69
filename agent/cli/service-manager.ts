import type { Deps } from '../base/deps';
import type { Health } from '../base/health';
import { type NotifySocket, openNotifySocket } from '../base/sd-notify';

/** How often the summary is looked at where there is no watchdog that asks for more. */
const LOOK_MS = 60_000;
/** Twice within its time is the advice of sd_watchdog_enabled(3); once more forgives a slow machine. */
const FEEDS_PER_WATCHDOG = 3;

/** Tells a service manager how a daemon does. */
export interface ServiceManager {
  /** The daemon serves from now on. */
  started(health: Health): void;
  /** It has been told to end. Resolves when the service manager knows. */
  stopping(): Promise<void>;
}

/**
 * Readiness, state and signs of life for the service manager of `NOTIFY_SOCKET`.
 *
 * @returns undefined where that is no socket.
 * @see sd_notify(3), sd_watchdog_enabled(3); systemd.service(5) Type=notify, WatchdogSec.
 */
export function createServiceManager(
  env: NodeJS.ProcessEnv,
  deps: Deps,
): ServiceManager | undefined {
  const socket = openNotifySocket(env.NOTIFY_SOCKET ?? '', deps.log);
  return socket && new Notifier(socket, watchdogMs(env), deps);
}

class Notifier implements ServiceManager {
  readonly #stop = new AbortController();
  #look = new AbortController();
  #unsubscribe = () => undefined as unknown;
  #said: string | undefined;
  #hungry: string | undefined;

  constructor(
    private readonly socket: NotifySocket,
    private readonly watchdogMs: number | undefined,
    private readonly deps: Deps,
  ) {}

  started(health: Health): void {
    if (this.#stop.signal.aborted) return;
    this.#said = health.summary();
    this.socket.tell({ READY: '1', STATUS: this.#said });
    this.#unsubscribe = health.onChange(() => this.#look.abort());
    void this.#follow(health);
  }

  async stopping(): Promise<void> {
    this.#stop.abort();
    this.#look.abort();
    this.#unsubscribe();
    this.socket.tell({ STOPPING: '1', STATUS: 'stopping' });
    await this.socket.told();
  }

  async #follow(health: Health): Promise<void> {
    const { clock } = this.deps;
    const everyMs = Math.min(
      LOOK_MS,
      (this.watchdogMs ?? Number.POSITIVE_INFINITY) / FEEDS_PER_WATCHDOG,
    );
    for (let feedAt = clock.now(); !this.#stop.signal.aborted; ) {
      if (clock.now() >= feedAt) {
        this.#feed(health);
        feedAt = clock.now() + everyMs;
      }
      this.#look = new AbortController();
      // It ends early after a change, and where the wall clock was set back: then it has been as long.
      await clock.sleepUntil(feedAt, this.#look.signal).then(
        () => {
          feedAt = clock.now();
        },
        () => undefined,
      );
      if (!this.#stop.signal.aborted) this.#tellSummary(health);
    }
  }

  #tellSummary(health: Health): void {
    const summary = health.summary();
    if (summary === this.#said) return;
    this.#said = summary;
    this.socket.tell({ STATUS: summary });
  }

  #feed(health: Health): void {
    if (this.watchdogMs === undefined) return;
    const stalled = health.stalled();
    if (stalled === undefined) this.socket.tell({ WATCHDOG: '1' });
    else if (stalled !== this.#hungry)
      this.deps.log.error('watchdog withheld', {
        because: stalled,
      });
    this.#hungry = stalled;
  }
}

/** Within which time the service manager wants a sign of life; undefined where it wants none of this process. */
function watchdogMs({
  WATCHDOG_USEC: time,
  WATCHDOG_PID: pid,
}: NodeJS.ProcessEnv): number | undefined {
  if (pid !== undefined && pid !== String(process.pid)) return undefined;
  return time !== undefined && /^[1-9]\d{0,15}$/.test(time) ? Number(time) / 1_000 : undefined;
}
