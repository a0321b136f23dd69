import { Closers } from '../base/closers';
import type { Deps } from '../base/deps';
import { type Watched, WatchedSource } from '../base/watched';
import type { CertSource, CertState, SourceDescription } from '../identity/cert-state';
import type { Svid } from '../identity/svid';
import type { ChosenCa } from './choose-ca';
import { servedSvid, type WorkloadParts } from './workload';

interface Member {
  readonly source: CertSource;
  readonly ca: ChosenCa | undefined;
  readonly revoked: WorkloadParts['revoked'];
  readonly close: () => Promise<void>;
}

/**
 * A source of certificates that can be exchanged for another while streams watch it. The new one takes over as soon as it has a
 * certificate, or at once where the old one has none: until then what is valid stays in service, and goes on being renewed.
 */
export class LiveSource implements CertSource {
  readonly #state: WatchedSource<CertState>;
  #current: Member;
  #next: Member | undefined;
  #unsubscribe: (() => void)[] = [];
  #endings: Promise<unknown> = Promise.resolve();

  constructor(
    parts: WorkloadParts,
    private readonly deps: Pick<Deps, 'log'>,
  ) {
    this.#current = memberOf(parts);
    this.#state = new WatchedSource(parts.source.state.value);
    this.#follow();
  }

  get state(): Watched<CertState> {
    return this.#state;
  }

  /** Whom the source in service asks. */
  get ca(): ChosenCa | undefined {
    return this.#current.ca;
  }

  /** As `WorkloadParts.revoked`, of the source in service. */
  revoked(serial: string): void {
    this.#current.revoked?.(serial);
  }

  /** Puts other parts in place of these, and of others that have not taken over yet. */
  replace(parts: WorkloadParts): void {
    if (this.#next) this.#end(this.#next);
    this.#next = memberOf(parts);
    this.#follow();
  }

  renewNow(reason: string): Promise<Svid> {
    return (this.#next ?? this.#current).source.renewNow(reason);
  }

  describe(): SourceDescription {
    const described = this.#current.source.describe();
    const waiting = this.#next?.source.describe();
    return waiting?.lastError === undefined
      ? described
      : { ...described, problem: waiting.lastError };
  }

  async close(): Promise<void> {
    this.#stopFollowing();
    if (this.#next) this.#end(this.#next);
    this.#end(this.#current);
    await this.#endings;
  }

  #follow(): void {
    this.#stopFollowing();
    const stop = [this.#current, this.#next].map((each) =>
      each?.source.state.subscribe(() => this.#look()),
    );
    // Subscribing looks at once, and may have followed anew already.
    if (this.#unsubscribe.length > 0) for (const each of stop) each?.();
    else this.#unsubscribe = stop.filter((each) => each !== undefined);
  }

  #stopFollowing(): void {
    for (const stop of this.#unsubscribe.splice(0)) stop();
  }

  #look(): void {
    const next = this.#next;
    if (
      next &&
      (servedSvid(next.source.state.value) || !servedSvid(this.#current.source.state.value))
    ) {
      this.#end(this.#current);
      this.#current = next;
      this.#next = undefined;
      this.#follow();
      return;
    }
    const { value } = this.#current.source.state;
    if (value !== this.#state.value) this.#state.set(value);
  }

  #end({ close }: Member): void {
    const ending = close().catch((cause) =>
      this.deps.log.warn('closing a certificate source failed', { cause }),
    );
    this.#endings = Promise.all([this.#endings, ending]);
  }
}

function memberOf({ source, ca, revoked, closers }: WorkloadParts): Member {
  return { source, ca, revoked, close: new Closers([...closers, () => source.close()]).close };
}
