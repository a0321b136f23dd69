import type { SdsStatus } from '../../agent/admin/agent-view';
import type { Deps } from '../../agent/base/deps';
import { LogRateLimit } from '../../agent/base/log-rate-limit';
import { LIMITS } from '../grpc/limits';
import { nameClass } from './resource-name';
import type { Lookup } from './secret-resource';
import type { Note, Response } from './subscription';
import { UnknownNames } from './unknown-names';

/** Who a line of the log is about. */
interface Subject {
  readonly id: number;
  readonly node: string;
}

const LINES_A_MINUTE = 20;

/** Counts and logs what streams do. A storm of one client costs counters, not lines. */
export class SdsTelemetry {
  readonly #deps: Deps;
  readonly #lookup: Lookup;
  readonly #unknown = new UnknownNames();
  readonly #refusals: LogRateLimit;
  readonly #failures: LogRateLimit;
  readonly #limits: LogRateLimit;

  constructor(lookup: Lookup, deps: Deps) {
    this.#deps = deps;
    this.#lookup = lookup;
    this.#refusals = new LogRateLimit(deps.clock, LINES_A_MINUTE);
    this.#failures = new LogRateLimit(deps.clock, LINES_A_MINUTE);
    this.#limits = new LogRateLimit(deps.clock, LINES_A_MINUTE);
  }

  unknownNames(): SdsStatus['unknownNames'] {
    return this.#unknown.list();
  }

  sent(response: Response): void {
    for (const { name } of response.resources)
      this.#deps.metrics.record('sds_pushes_total', { name: nameClass(name) });
  }

  note(subject: Subject, note: Note): void {
    const { metrics } = this.#deps;
    switch (note.kind) {
      case 'acknowledged': {
        metrics.record('sds_acks_total', { name: nameClass(note.delivery.name) });
        if (note.replaces) this.#measure(note.delivery.name, note.delivery.version);
        return;
      }
      case 'refused':
        metrics.record('sds_nacks_total', { name: nameClass(note.name) });
        if (!note.repeated) this.#logRefusal(subject, note);
        return;
      case 'stale':
        metrics.record('sds_stale_nonces_total', {});
        return;
      case 'unknown':
        this.unknown(note.name, subject);
        return;
    }
  }

  /** A name that nobody serves. Logged the first time. */
  unknown(name: string, subject?: Subject): void {
    this.#deps.metrics.record('sds_unknown_names_total', {});
    if (!this.#unknown.add(name)) return;
    this.#limits.spend((withheld) =>
      this.#deps.log.warn('unknown secret requested', {
        name: name.slice(0, LIMITS.shownName),
        ...about(subject),
        withheld,
      }),
    );
  }

  /** A connection, stream or message that is over a limit or malformed. */
  refused(reason: string, facts: Readonly<Record<string, unknown>>): void {
    this.#deps.metrics.record('sds_refused_total', { reason });
    this.#limits.spend((withheld) =>
      this.#deps.log.warn('sds client refused', { reason, ...facts, withheld }),
    );
  }

  /** A fault of our own in one stream. */
  failed(subject: Subject, cause: unknown): void {
    this.#failures.spend((withheld) =>
      this.#deps.log.error('sds stream failed', { ...about(subject), cause, withheld }),
    );
  }

  #logRefusal(subject: Subject, note: Extract<Note, { kind: 'refused' }>): void {
    const { name, version, message } = note;
    const facts = {
      name: name.slice(0, LIMITS.shownName),
      version: version || undefined,
      message,
      ...about(subject),
    };
    this.#refusals.spend((withheld) =>
      this.#deps.log.warn('secret rejected by client (NACK)', {
        ...facts,
        withheld,
      }),
    );
  }

  #measure(name: string, version: string): void {
    const found = this.#lookup(name);
    if (typeof found === 'string' || found.version !== version) return;
    const seconds = (this.#deps.clock.now() - found.publishedAt) / 1_000;
    this.#deps.metrics.record('sds_push_duration_seconds', {}, Math.max(seconds, 0));
  }
}

function about(subject: Subject | undefined) {
  return subject && { stream: subject.id, node: subject.node || undefined };
}
