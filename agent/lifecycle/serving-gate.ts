import { createHash } from 'node:crypto';
import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import { type Watched, WatchedSource } from '../base/watched';
import type { CertState } from '../identity/cert-state';
import { certificatesPem } from '../identity/certificate';
import type { CrlSet } from '../identity/crl';
import { privateKeyPem } from '../identity/keys';
import type { HandshakeMaterial } from '../identity/self-handshake';
import type { TrustBundle } from '../identity/trust-bundle';
import { nextChangeAt, type Withheld } from '../identity/valid-now';
import {
  type Choice,
  chooseServed,
  type Offered,
  type Prepared,
  type Verdict,
} from './choose-served';

export interface ServingGateOptions {
  /** What the source offers. */
  readonly state: Watched<CertState>;
  /** Revocation lists; undefined where revocation is not looked at. */
  readonly lists: Watched<CrlSet | undefined> | undefined;
  /** Why this machine's TLS refuses a set, or nothing. Rejects where it cannot find out. */
  readonly handshake: (material: HandshakeMaterial) => Promise<string | undefined>;
  /** Is told that the lists name the certificate that the source offers. */
  readonly revoked: (serial: string) => void;
}

/** What stands between a source and everything that hands its certificates out: nothing passes that would make a proxy refuse every peer. */
export interface ServingGate {
  /** The source's state with what may be served of it now. Changes together with `lists`. */
  readonly state: Watched<CertState>;
  /** The lists that go with it. */
  readonly lists: Watched<CrlSet | undefined> | undefined;
  /** Why what the source offers is not served, or is refused by peers; undefined where all is well. */
  problem(): AgentError | undefined;
  /** Roots of the bundle that are not served at the moment. */
  withheld(): readonly Withheld[];
  close(): Promise<void>;
}

interface Served {
  readonly state: CertState;
  readonly lists: CrlSet | undefined;
}

const NOTHING: Offered = { svid: undefined, bundle: undefined, lists: undefined };
/** A set that the handshake refuses is tried again: the clock, and dates that only the runtime looks at, move on. */
const REFUSED_AGAIN_MS = 60_000;
/** Verdicts that are remembered: of what is served, what is offered, and what a flapping source offers in turn. */
const MAX_VERDICTS = 16;

/**
 * Serves of a state what is valid at each moment and has passed the self-check, and takes certificates up and drops them at their dates.
 * What fails does not replace what works. A changed set is checked once; where its outcome is known, the answer is there at once.
 */
export function createServingGate(options: ServingGateOptions, deps: Deps): ServingGate {
  return new Gate(options, deps);
}

class Gate implements ServingGate {
  readonly #served: WatchedSource<Served>;
  readonly #stop = new AbortController();
  readonly #endings: readonly (() => void)[];
  readonly #verdicts = new Map<string, string | undefined>();
  #good: Offered = NOTHING;
  /** What went out of it. */
  #chosen: Prepared | undefined;
  #withheld: readonly Withheld[] = [];
  #problem: AgentError | undefined;
  #reported = '';
  #reportedWithheld = '';
  #asking: Promise<void> | undefined;
  #wait = new AbortController();
  #waiting: Promise<void> = Promise.resolve();

  constructor(
    private readonly options: ServingGateOptions,
    private readonly deps: Deps,
  ) {
    this.#served = new WatchedSource<Served>({
      state: { kind: 'starting', bundle: undefined },
      lists: undefined,
    });
    const changed = () => this.#changed();
    const watched = [options.state, options.lists].flatMap((each) =>
      each ? [each.subscribe(changed)] : [],
    );
    this.#endings = [...watched, deps.clock.onJump(() => this.#again())];
  }

  get state(): Watched<CertState> {
    return part(this.#served, ({ state }) => state);
  }

  get lists(): Watched<CrlSet | undefined> | undefined {
    return this.options.lists && part(this.#served, ({ lists }) => lists);
  }

  problem(): AgentError | undefined {
    return this.#problem;
  }

  withheld(): readonly Withheld[] {
    return this.#withheld;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#wait.abort();
    for (const end of this.#endings) end();
    await Promise.all([this.#asking, this.#waiting]);
  }

  /** As after a change, and what was refused is tried again. */
  #again(): void {
    for (const [digest, refused] of this.#verdicts)
      if (refused !== undefined) this.#verdicts.delete(digest);
    this.#changed();
  }

  /** Decides at once where every outcome is known; else when the handshake that is asked for has ended. */
  #changed(): void {
    if (this.#asking || this.#stop.signal.aborted) return;
    const choice = this.#choose();
    if (choice.kind !== 'ask') {
      this.#serve(choice);
      return;
    }
    this.#asking = this.#ask(choice.about).then(() => {
      this.#asking = undefined;
      this.#changed();
    });
  }

  #choose(): Choice {
    return chooseServed(this.#newest(), this.#good, this.deps.clock.now(), (prepared) =>
      this.#verdict(prepared),
    );
  }

  #newest(): Offered {
    const state = this.options.state.value;
    const offered = state.kind === 'current' || state.kind === 'overdue' ? state.svid : undefined;
    // At its end its source says so in the same moment: that is no failure of the check.
    const svid = offered && this.deps.clock.now() < offered.notAfterAt ? offered : undefined;
    return { svid, bundle: state.bundle, lists: this.options.lists?.value };
  }

  #verdict(prepared: Prepared): Verdict {
    if (!prepared.handshake) return 'good';
    const digest = digestOf(prepared);
    if (!this.#verdicts.has(digest)) return 'unknown';
    const refused = this.#verdicts.get(digest);
    if (refused === undefined) return 'good';
    if (refused === 'CERT_REVOKED')
      return { kind: 'revoked', field: 'leaf', rule: 'must not be revoked' };
    return {
      kind: 'path',
      field: 'handshake',
      rule: `must succeed with our own certificate: TLS of this machine says ${refused}`,
    };
  }

  async #ask(prepared: Prepared): Promise<void> {
    const digest = digestOf(prepared);
    const { svid, bundle } = prepared as {
      svid: NonNullable<Prepared['svid']>;
      bundle: TrustBundle;
    };
    const keyPem = privateKeyPem(svid.key, 'pkcs8');
    let refused: string | undefined;
    try {
      refused = await this.options.handshake({
        keyPem,
        chainPem: certificatesPem(svid.chainDer),
        rootsPem: certificatesPem(bundle.rootsDer),
        listsPem: prepared.handshake?.lists?.pems ?? [],
      });
    } catch (cause) {
      // Of the two checks the model has passed; a machine that cannot try must not keep back what is good.
      this.deps.log.warn('self-check handshake could not run', { cause });
    } finally {
      keyPem.fill(0);
    }
    this.#verdicts.delete(digest);
    this.#verdicts.set(digest, refused);
    for (const oldest of this.#verdicts.keys()) {
      if (this.#verdicts.size <= MAX_VERDICTS) break;
      this.#verdicts.delete(oldest);
    }
  }

  #serve(choice: Exclude<Choice, { kind: 'ask' }>): void {
    const newest = this.#newest();
    this.#problem = choice.obstacle && selfCheckError(choice.obstacle, this.#isServing());
    if (choice.kind === 'serve') {
      this.#good = choice.what.offered;
      this.#chosen = choice.what;
    }
    this.#withheld = choice.kind === 'serve' ? choice.what.withheld : choice.newest.withheld;
    this.#report();
    const nextAt = this.#waitForDates(newest);
    const state = this.#stateOf(nextAt);
    const lists = this.#chosen?.offered.lists;
    const { value } = this.#served;
    if (!isSame(state, value.state) || lists?.version !== value.lists?.version)
      this.#served.set({ state, lists });
    if (choice.obstacle?.kind === 'revoked' && newest.svid)
      this.options.revoked(newest.svid.serial);
  }

  /** Whether a proxy has all that it needs: roots wait for the first lists. */
  #isServing(): boolean {
    return (
      this.#chosen?.svid !== undefined &&
      (!this.options.lists || this.#chosen.offered.lists !== undefined)
    );
  }

  /** The source's state with the certificate and bundle that were chosen. */
  #stateOf(nextAt: number): CertState {
    const source = this.options.state.value;
    const { svid, bundle, offered } = this.#chosen ?? {
      svid: undefined,
      bundle: undefined,
      offered: NOTHING,
    };
    if (source.kind === 'starting' || source.kind === 'unavailable') return { ...source, bundle };
    const isCurrent = svid && this.deps.clock.now() < svid.notAfterAt;
    const error =
      this.#problem ??
      new AgentError('ERR_SELF_CHECK', 'self-check: nothing can be served', { retry: 'soon' });
    const retryAt = Number.isFinite(nextAt) ? nextAt : source.svid.notAfterAt;
    if (!isCurrent || !bundle) {
      const expired = this.#newest().svid ? undefined : source.svid;
      return { kind: 'unavailable', bundle, expired, retryAt, error };
    }
    if (offered.svid?.serial === source.svid.serial) return { ...source, svid, bundle };
    return { kind: 'overdue', svid, bundle, retryAt, error };
  }

  /** Decides again when something of what is offered or served begins or ends. Returns when that is. */
  #waitForDates(newest: Offered): number {
    const offers = [newest, this.#good];
    const now = this.deps.clock.now();
    const at = nextChangeAt(
      offers.map(({ svid }) => svid),
      offers.map(({ bundle }) => bundle),
      offers.map(({ lists }) => lists),
      now,
    );
    const isRefused = [...this.#verdicts.values()].some((each) => each !== undefined);
    const lookAt = isRefused ? Math.min(at, now + REFUSED_AGAIN_MS) : at;
    this.#wait.abort();
    if (!Number.isFinite(lookAt) || this.#stop.signal.aborted) return at;
    this.#wait = new AbortController();
    const previous = this.#waiting;
    const waiting = this.deps.clock.sleepUntil(lookAt, this.#wait.signal).then(
      () => this.#again(),
      () => undefined,
    );
    this.#waiting = Promise.all([previous, waiting]).then(() => undefined);
    return at;
  }

  #report(): void {
    const { log } = this.deps;
    const problem = this.#problem?.message ?? '';
    if (problem !== this.#reported) {
      if (this.#problem) log.error('self-check failed', { cause: this.#problem });
      else log.info('self-check passed again');
    }
    this.#reported = problem;
    const roots = this.#withheld.map(
      ({ certificate, because }) => `${certificate.subject || certificate.sha256} ${because}`,
    );
    const withheld = roots.join('; ');
    if (withheld !== this.#reportedWithheld && withheld !== '')
      log.warn('roots withheld from proxies', { roots });
    this.#reportedWithheld = withheld;
  }
}

function part<T, P>(whole: Watched<T>, pick: (value: T) => P): Watched<P> {
  return {
    get value() {
      return pick(whole.value);
    },
    subscribe: (listener) => whole.subscribe((value) => listener(pick(value))),
  };
}

function digestOf({ svid, bundle, handshake }: Prepared): string {
  const hash = createHash('sha256');
  for (const der of svid?.chainDer ?? []) hash.update(der);
  return hash.update(`${bundle?.version} ${handshake?.lists?.version}`).digest('hex');
}

function selfCheckError(
  { kind, field, rule }: Exclude<Verdict, string>,
  hasServed: boolean,
): AgentError {
  const outcome = hasServed ? 'the previous set stays in service' : 'nothing is served';
  const what = kind === 'revoked' ? 'served certificate is revoked' : outcome;
  return new AgentError('ERR_SELF_CHECK', `self-check: ${field} ${rule}; ${what}`, {
    retry: 'soon',
    field,
    rule,
    hint: HINTS[kind],
  });
}

const HINTS: Readonly<Record<Exclude<Verdict, string>['kind'], string>> = {
  names: 'take roots that no peer needs out of the trust bundle',
  path: 'compare the trust bundle (root-cert.pem), the chain of the CA (cert-chain.pem) and the clock with what proxies verify',
  lists:
    "publish a revocation list of our certificate's issuer with the others, without extensions that narrow it",
  revoked:
    'it is replaced as soon as the CA takes another proof: a service account token, or a new join token (keyturn vm join)',
};

function isSame(a: CertState, b: CertState): boolean {
  const names = new Set([...Object.keys(a), ...Object.keys(b)]) as Set<keyof CertState>;
  return [...names].every((name) =>
    name === 'bundle' ? a.bundle?.version === b.bundle?.version : a[name] === b[name],
  );
}
