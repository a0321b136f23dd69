import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import { iso } from '../base/iso';
import { type Watched, WatchedSource } from '../base/watched';
import { rootWarnings } from '../identity/certificate';
import { SKEW_TOLERANCE_MS } from '../identity/chain';
import type { Csr } from '../identity/csr';
import { parseCsr, type UnverifiedCsr } from '../identity/csr';
import type { CertificateEngine, CertificateSpec } from '../identity/engine';
import type { KeyAlgorithm } from '../identity/keys';
import { formatSpiffeId, type SpiffeId } from '../identity/spiffe-id';
import type { TrustBundle } from '../identity/trust-bundle';
import { DEFAULT_TTL_SECONDS, leafSpec, type ServerNames, serverSpec } from './certificate-specs';
import { assertCsrAllowed, rejected } from './csr-rules';
import { type CaFiles, readCaFiles } from './directory/ca-files';
import { ensureCaFiles } from './directory/create-ca-files';
import { followCaFiles } from './directory/follow-ca-files';
import { acceptIssuer, type Issuer, type IssuerDomains } from './issuer';
import { makeRoot } from './make-root';
import { assertMatchesSpec } from './verify-issued';

/** A certificate authority on a directory: it signs, and follows what an operator does to the directory. */
export interface Authority {
  /** The roots of root-cert.pem. */
  readonly trust: Watched<TrustBundle>;
  /**
   * Signs one leaf.
   *
   * @param csrDer      PKCS#10, DER, from anybody. Only its public key enters the certificate.
   * @param caller      Who sends it, as proven by whoever asks; the one name that the certificate carries.
   * @param ttlSeconds  Zero or less means 24 hours. Cut to the end of the issuer's own validity.
   * @returns           DER: the leaf, then the intermediates up to but without the root. All of one issuer, whatever is reloaded meanwhile.
   * @throws            AgentError ERR_CA_REJECTED (retry slow) with field and rule, or ERR_CA_UNAVAILABLE where the signer is out of date.
   */
  sign(csrDer: Uint8Array, caller: SpiffeId, ttlSeconds: number): Promise<Uint8Array[]>;
  /**
   * Reads a request and verifies its signature and key; whom it asks for is not looked at.
   *
   * @throws AgentError ERR_CA_REJECTED with field and rule.
   */
  readCsr(csrDer: Uint8Array): Promise<Csr>;
  /** The part of `readCsr` that costs next to nothing, whatever the key, and the rest of it. @throws AgentError as there. */
  parseCsr(csrDer: Uint8Array): UnverifiedCsr;
  verifyCsr(csr: UnverifiedCsr): Promise<Csr>;
  /**
   * As `sign`, of a request that `readCsr` has read, and with the facts that a register of certificates wants. Whoever keeps one tells of
   * the certificate there: here it is worth a line for debugging only.
   */
  issue(csr: Csr, caller: SpiffeId, ttlSeconds: number): Promise<IssuedLeaf>;
  /** Certifies a TLS server of ours, for its names and serverAuth alone. @throws AgentError ERR_CA_UNAVAILABLE. */
  issueServer(spkiDer: Uint8Array, names: ServerNames, ttlSeconds: number): Promise<IssuedLeaf>;
  /** Why nothing can be signed now; undefined where it can. */
  problem(): AgentError | undefined;
  /** Calls back after another key, certificate or chain has begun to sign, and after `trust` has told of the roots that belong to it. */
  onSignerChange(listener: () => void): () => void;
  describe(): AuthorityDescription;
  /** Stops following the directory; resolves when the last read has ended. */
  close(): Promise<void>;
}

/** A certificate that was signed just now. */
export interface IssuedLeaf {
  /** The leaf, then the intermediates up to but without the root. */
  readonly certificatesDer: readonly Uint8Array[];
  /** Lower-case hex. */
  readonly serial: string;
  /** Epoch milliseconds. */
  readonly notBeforeAt: number;
  readonly notAfterAt: number;
  /** The signer's key identifier, and SHA-256 over the SubjectPublicKeyInfo of its root; lower-case hex. */
  readonly issuerKeyId: string;
  readonly rootKeySha256: string;
}

export interface AuthorityDescription {
  readonly dir: string;
  /** The signer's name. */
  readonly subject: string;
  readonly keyAlgorithm: KeyAlgorithm;
  /** The earliest notAfter from the signer to its root, epoch milliseconds. */
  readonly notAfterAt: number;
  /** Why the directory as it stands is not in use; the last good set is. */
  readonly lastError: AgentError | undefined;
}

export interface AuthorityOptions extends IssuerDomains {
  /** Holds the four files of `CA_FILES`; made, and filled with a new self-signed root, where it holds none of them. */
  readonly dir: string;
  /** Of a root that is made; what is there already may be of another. */
  readonly rootAlgorithm: KeyAlgorithm;
  readonly engine: CertificateEngine;
}

/** The directory is watched from here on: what its following takes, the first certificate need not wait for. It is read anew then. */
const FOLLOW_AFTER_MS = 200;

/**
 * Opens the CA directory, or makes it.
 *
 * @throws AgentError ERR_CA_STATE: incomplete, too open, somebody else's, or not a CA that verifies; the message names file and rule.
 */
export async function openAuthority(options: AuthorityOptions, deps: Deps): Promise<Authority> {
  const { dir, trustDomain, rootAlgorithm, engine } = options;
  const now = deps.clock.now();
  const made = await ensureCaFiles(dir, () => makeRoot(engine, trustDomain, rootAlgorithm, now));
  const issuer = await acceptIssuer(await readCaFiles(dir), options, engine, now);
  deps.log.info(made ? 'CA created' : 'CA opened', { dir, ...issuerFacts(issuer) });
  warnOfRoots(issuer.bundle, deps);
  return new BuiltinAuthority(options, issuer, deps);
}

class BuiltinAuthority implements Authority {
  readonly #options: AuthorityOptions;
  readonly #deps: Deps;
  readonly #trust: WatchedSource<TrustBundle>;
  readonly #listeners = new Set<{ readonly call: () => void }>();
  readonly #stop = new AbortController();
  readonly #following: Promise<void>;
  #issuer: Issuer;
  #lastError: AgentError | undefined;
  /** What was last complained of, so that each thing is said once. */
  #complaint = '';

  constructor(options: AuthorityOptions, issuer: Issuer, deps: Deps) {
    this.#options = options;
    this.#issuer = issuer;
    this.#deps = deps;
    this.#trust = new WatchedSource(issuer.bundle);
    this.#following = deps.clock
      .sleepUntil(deps.clock.now() + FOLLOW_AFTER_MS, this.#stop.signal)
      .then(
        () => this.#follow(),
        () => undefined,
      );
  }

  get trust(): Watched<TrustBundle> {
    return this.#trust;
  }

  async sign(csrDer: Uint8Array, caller: SpiffeId, ttlSeconds: number): Promise<Uint8Array[]> {
    this.#assertOurs(caller);
    const csr = await this.readCsr(csrDer);
    assertCsrAllowed(csr, caller);
    return [...(await this.#createLeaf(csr, caller, ttlSeconds, 'info')).certificatesDer];
  }

  async issue(csr: Csr, caller: SpiffeId, ttlSeconds: number): Promise<IssuedLeaf> {
    this.#assertOurs(caller);
    assertCsrAllowed(csr, caller);
    return this.#createLeaf(csr, caller, ttlSeconds, 'debug');
  }

  async issueServer(
    spkiDer: Uint8Array,
    names: ServerNames,
    ttlSeconds: number,
  ): Promise<IssuedLeaf> {
    return this.#create(ttlSeconds, 'info', (issuer, now) =>
      serverSpec(spkiDer, names, ttlSeconds, issuer, now),
    );
  }

  problem(): AgentError | undefined {
    return this.#problem(this.#issuer, this.#deps.clock.now());
  }

  onSignerChange(listener: () => void): () => void {
    const entry = { call: listener };
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  describe(): AuthorityDescription {
    const { subject, key, notAfterAt } = this.#issuer;
    return {
      dir: this.#options.dir,
      subject,
      keyAlgorithm: key.algorithm,
      notAfterAt,
      lastError: this.#lastError,
    };
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#following;
  }

  #createLeaf(
    csr: Csr,
    caller: SpiffeId,
    ttlSeconds: number,
    level: 'info' | 'debug',
  ): Promise<IssuedLeaf> {
    return this.#create(ttlSeconds, level, (issuer, now) =>
      leafSpec(csr.spkiDer, caller, ttlSeconds, issuer, now),
    );
  }

  async #create(
    ttlSeconds: number,
    level: 'info' | 'debug',
    specOf: (issuer: Issuer, now: number) => CertificateSpec,
  ): Promise<IssuedLeaf> {
    // Taken once: a reload while this call waits must not put a new chain over an old signature.
    const issuer = this.#issuer;
    const now = this.#deps.clock.now();
    this.#assertUsable(issuer, now);
    const spec = specOf(issuer, now);
    const leaf = await this.#options.engine.createCertificate(spec, issuer.key);
    this.#check(leaf, spec);
    const serial = Buffer.from(spec.serial).toString('hex');
    this.#tellIssued(
      issuer,
      spec,
      serial,
      level,
      now + (ttlSeconds > 0 ? ttlSeconds : DEFAULT_TTL_SECONDS) * 1_000,
    );
    return {
      certificatesDer: [leaf, ...issuer.chainDer],
      serial,
      notBeforeAt: spec.notBeforeAt,
      notAfterAt: spec.notAfterAt,
      issuerKeyId: Buffer.from(issuer.keyId).toString('hex'),
      rootKeySha256: issuer.rootKeySha256,
    };
  }

  #check(leaf: Uint8Array, spec: CertificateSpec): void {
    try {
      assertMatchesSpec(leaf, spec);
    } catch (caught) {
      this.#deps.log.error('issued certificate failed self-check', { cause: caught });
      throw caught;
    }
  }

  #assertOurs(caller: SpiffeId): void {
    const { trustDomain } = this.#options;
    if (caller.trustDomain !== trustDomain)
      throw rejected('caller', `must be of trust domain ${trustDomain}`, formatSpiffeId(caller));
  }

  async readCsr(csrDer: Uint8Array): Promise<Csr> {
    return this.verifyCsr(this.parseCsr(csrDer));
  }

  parseCsr(csrDer: Uint8Array): UnverifiedCsr {
    try {
      return parseCsr(csrDer);
    } catch (caught) {
      throw csrFault(caught);
    }
  }

  async verifyCsr(csr: UnverifiedCsr): Promise<Csr> {
    try {
      return await this.#options.engine.verifyCsr(csr);
    } catch (caught) {
      throw csrFault(caught);
    }
  }

  #problem(issuer: Issuer, now: number): AgentError | undefined {
    const early = now < issuer.notBeforeAt - SKEW_TOLERANCE_MS;
    if (!early && now < issuer.notAfterAt) return undefined;
    const what = early
      ? `is not valid before ${iso(issuer.notBeforeAt)}`
      : `expired at ${iso(issuer.notAfterAt)}`;
    return new AgentError(
      'ERR_CA_UNAVAILABLE',
      `sign: the CA certificate ${issuer.subject} ${what}`,
      {
        retry: 'slow',
        hint: `put a valid CA into ${this.#options.dir}; the authority loads it at once`,
      },
    );
  }

  #assertUsable(issuer: Issuer, now: number): void {
    const error = this.#problem(issuer, now);
    if (error === undefined) return;
    this.#complain(error.message, () => this.#deps.log.error('CA cannot sign', { cause: error }));
    throw error;
  }

  #tellIssued(
    issuer: Issuer,
    { notAfterAt, profile }: CertificateSpec,
    serial: string,
    level: 'info' | 'debug',
    wantedAt: number,
  ): void {
    const { log } = this.#deps;
    const whom =
      profile.kind === 'server'
        ? { server: [...profile.dnsNames, ...profile.ipAddresses] }
        : { id: profile.uri };
    log[level]('certificate signed', { ...whom, serial, notAfter: iso(notAfterAt) });
    if (notAfterAt < issuer.notAfterAt || wantedAt <= issuer.notAfterAt) return;
    this.#complain(`cut short by ${issuer.version}`, () =>
      log.warn('certificate lifetimes capped by the CA certificate', {
        subject: issuer.subject,
        notAfter: iso(notAfterAt),
      }),
    );
  }

  #follow(): Promise<void> {
    return followCaFiles(
      this.#options.dir,
      { judge: (files) => this.#judge(files), refused: (error) => this.#refused(error) },
      this.#deps,
      this.#stop.signal,
    ).catch((cause) => this.#deps.log.error('CA directory watch failed', { cause }));
  }

  async #judge(files: CaFiles): Promise<number> {
    const next = await acceptIssuer(
      files,
      this.#options,
      this.#options.engine,
      this.#deps.clock.now(),
    );
    if (this.#stop.signal.aborted) return next.changesAt;
    if (this.#lastError)
      this.#deps.log.info('CA directory valid again', { dir: this.#options.dir });
    this.#lastError = undefined;
    this.#use(next);
    // Looked at again when it dies, so that this is told when it happens, not at the next request; and when a longer path begins.
    return next.changesAt;
  }

  /** Roots first: whoever renews because of the new signer is judged by, and hands out, the roots that belong to it. */
  #use(next: Issuer): void {
    const previous = this.#issuer;
    this.#issuer = next;
    if (next.bundle.version !== previous.bundle.version) {
      this.#tellRoots(previous.bundle, next.bundle);
      this.#trust.set(next.bundle);
    }
    if (next.version === previous.version) return;
    this.#deps.log.info('CA signer changed', issuerFacts(next));
    for (const listener of [...this.#listeners]) listener.call();
  }

  #tellRoots(previous: TrustBundle, next: TrustBundle): void {
    const { log } = this.#deps;
    log.info('CA roots changed', { roots: next.rootsDer.length, version: next.version });
    warnOfRoots(next, this.#deps);
    const kept = next.rootsDer.some((root) =>
      previous.rootsDer.some((other) => Buffer.compare(root, other) === 0),
    );
    if (!kept) log.warn('CA roots replaced without an overlap', { version: next.version });
  }

  #refused(error: AgentError): void {
    this.#lastError = error;
    this.#deps.metrics.record('file_read_failures_total', {});
    this.#complain(error.message, () =>
      this.#deps.log.error('CA directory invalid, keeping the previous CA', {
        cause: error,
      }),
    );
  }

  #complain(what: string, tell: () => void): void {
    if (what !== this.#complaint) tell();
    this.#complaint = what;
  }
}

function warnOfRoots(bundle: TrustBundle, { log }: Deps): void {
  for (const warning of rootWarnings(bundle)) log.warn('CA roots have warnings', { warning });
}

function csrFault(caught: unknown): AgentError {
  const error = AgentError.from(caught);
  return error.code === 'ERR_PARSE'
    ? rejected(error.field ?? 'csr', error.rule ?? error.message, 'a workload', error)
    : error;
}

function issuerFacts(issuer: Issuer) {
  return {
    subject: issuer.subject,
    keyAlgorithm: issuer.key.algorithm,
    intermediates: issuer.chainDer.length,
    roots: issuer.bundle.rootsDer.length,
    notAfter: iso(issuer.notAfterAt),
  };
}
