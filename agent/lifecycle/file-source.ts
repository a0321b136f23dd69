import { dirname, join } from 'node:path';
import { backoffMs, DEFAULT_BACKOFF } from '../base/backoff';
import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import { type FileWatch, watchFiles } from '../base/file-watch';
import { iso } from '../base/iso';
import type { Watched } from '../base/watched';
import type { CertSource, CertState, PlanStep, SourceDescription } from '../identity/cert-state';
import { formatSpiffeId, type SpiffeId } from '../identity/spiffe-id';
import { acceptMountedFiles, type MountedFiles, revalidateSvid, type Svid } from '../identity/svid';
import { CertStatePublisher } from './cert-state-publisher';
import { CERT_FILES } from './file-output';
import { readTogether } from './read-together';

/** Where the files lie. `key` and `certChain` may be one file that holds both, a credential bundle. */
export interface CertPaths {
  readonly key: string;
  readonly certChain: string;
  readonly rootCert: string;
}

export interface FileSourceOptions {
  readonly paths: CertPaths;
  /** The identity that the certificate must carry; undefined takes the one that it has. */
  readonly expectedId: SpiffeId | undefined;
  /** Other trust domains whose roots may be among ours. */
  readonly rootTrustDomains?: readonly string[];
}

/** The files of a directory, by default those of upstream. */
export function certPathsIn(dir: string, names: CertPaths = CERT_FILES): CertPaths {
  return {
    key: join(dir, names.key),
    certChain: join(dir, names.certChain),
    rootCert: join(dir, names.rootCert),
  };
}

/**
 * Serves a certificate that others mount and renew (`FILE_MOUNTED_CERTS`, `workload-spiffe-credentials`). The files are read as one and
 * watched through every kind of replacement. A bad or missing file is logged, counted and read again; the previous set stays in service
 * until it expires.
 */
export function createFileSource(options: FileSourceOptions, deps: Deps): CertSource {
  return new FileSource(options, deps);
}

class FileSource implements CertSource {
  readonly #stop = new AbortController();
  readonly #offer: CertStatePublisher;
  readonly #paths: readonly string[];
  /** For people: the directory, or the files where they have no directory in common. */
  readonly #where: string;
  readonly #loop: Promise<void>;
  #wait = new AbortController();
  #changed = false;
  #inFlight: { readonly since: number; readonly svid: Promise<Svid> } | undefined;
  #failure: { readonly error: AgentError; readonly retryAt: number } | undefined;
  /** When the certificate on disk begins, where the one in service stays until then. */
  #beginsAt: number | undefined;
  #lastError: { readonly error: AgentError; readonly at: number } | undefined;
  #failures = 0;
  #attempts = 0;
  #renewals = 0;

  constructor(
    private readonly options: FileSourceOptions,
    private readonly deps: Deps,
  ) {
    const { key, certChain, rootCert } = options.paths;
    this.#paths = [...new Set([key, certChain, rootCert])];
    const dirs = new Set(this.#paths.map((path) => dirname(path)));
    this.#where =
      this.#paths.length === 3 && dirs.size === 1 ? dirname(key) : this.#paths.join(', ');
    this.#offer = new CertStatePublisher(undefined, 'ERR_FILE_SOURCE', deps);
    this.#loop = this.#run();
  }

  get state(): Watched<CertState> {
    return this.#offer.state;
  }

  async renewNow(_reason: string): Promise<Svid> {
    if (this.#stop.signal.aborted)
      throw new AgentError('ERR_ABORTED', 'read certificate files: the agent is closing');
    // The reading in flight may have begun before the change that the caller knows of.
    await this.#inFlight?.svid.catch(() => undefined);
    return this.#read();
  }

  describe(): SourceDescription {
    return {
      source: 'file',
      failures: this.#failures,
      attempts: this.#attempts,
      renewals: this.#renewals,
      attemptSince: this.#inFlight?.since,
      dueAt: this.#dueAt(),
      lastError: this.#lastError?.error,
      lastErrorAt: this.#lastError?.at,
      problem: undefined,
      plan: this.#steps(),
    };
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#wait.abort();
    await this.#loop;
    await this.#inFlight?.svid.catch(() => undefined);
    await this.#offer.close();
  }

  async #run(): Promise<void> {
    await this.#read().catch(() => undefined);
    let watch: FileWatch | undefined;
    if (!this.#stop.signal.aborted) {
      watch = await watchFiles(this.#paths, () => this.#hurry(), this.deps);
      // For what changed before the watch began; after a failure the retry sees it.
      if (!this.#failure) this.#hurry();
    }
    while (!this.#stop.signal.aborted) {
      await this.#untilDue();
      if (!this.#stop.signal.aborted) await this.#read().catch(() => undefined);
    }
    await watch?.close();
  }

  async #untilDue(): Promise<void> {
    this.#wait = new AbortController();
    if (this.#changed) return;
    await this.deps.clock
      .sleepUntil(this.#dueAt() ?? Number.POSITIVE_INFINITY, this.#wait.signal)
      .catch(() => undefined);
  }

  #dueAt(): number | undefined {
    return this.#failure?.retryAt ?? this.#beginsAt;
  }

  #hurry(): void {
    this.#changed = true;
    this.#wait.abort();
  }

  /** Reads now, or joins the reading in flight; a change that comes meanwhile is read after it. */
  #read(): Promise<Svid> {
    if (this.#inFlight) return this.#inFlight.svid;
    this.#changed = false;
    this.#attempts += 1;
    const svid = this.#readOnce().finally(() => {
      this.#inFlight = undefined;
    });
    void svid.catch(() => undefined);
    this.#inFlight = { since: this.deps.clock.now(), svid };
    return svid;
  }

  async #readOnce(): Promise<Svid> {
    try {
      const { expectedId, rootTrustDomains } = this.options;
      const files = await this.#readFiles();
      return this.#accept(
        acceptMountedFiles(files, expectedId, this.deps.clock.now(), rootTrustDomains),
      );
    } catch (caught) {
      const error = AgentError.from(caught, 'ERR_FILE_SOURCE');
      if (!this.#stop.signal.aborted) this.#fail(error);
      throw error;
    }
  }

  async #readFiles(): Promise<MountedFiles> {
    const { key, certChain, rootCert } = this.options.paths;
    const contents = await readTogether(this.#paths, (path) => ({
      field: path,
      code: 'ERR_FILE_SOURCE',
    }));
    const at = (path: string) => contents[this.#paths.indexOf(path)]!;
    return { keyPem: at(key), certChainPem: at(certChain), rootCertPem: at(rootCert) };
  }

  #accept(read: Svid): Svid {
    this.#failures = 0;
    this.#failure = undefined;
    this.#beginsAt = undefined;
    const previous = this.#offer.svid;
    if (previous && this.#keeps(previous, read)) return previous;
    const same = previous !== undefined && sameIdentity(previous, read);
    const svid = same ? previous : read;
    this.#offer.accept(svid, svid.bundle, undefined);
    if (same) return svid;
    this.#renewals += 1;
    this.deps.log.info(previous ? 'certificate files replaced' : 'certificate files read', {
      files: this.#where,
      ...(svid.id && { id: formatSpiffeId(svid.id) }),
      serial: svid.serial,
      notAfter: iso(svid.notAfterAt),
      ...(svid.warnings.length > 0 && { warnings: svid.warnings }),
    });
    return svid;
  }

  /** A certificate that is not valid yet replaces none that is: it is read again when it begins, or when the one in service ends. */
  #keeps(previous: Svid, read: Svid): boolean {
    const now = this.deps.clock.now();
    if (read.serial === previous.serial || now >= read.notBeforeAt || now >= previous.notAfterAt)
      return false;
    this.#beginsAt = Math.min(read.notBeforeAt, previous.notAfterAt);
    this.deps.log.info('certificate files not yet valid, serving the previous ones', {
      files: this.#where,
      serial: read.serial,
      notBefore: iso(read.notBeforeAt),
    });
    // The new roots hold already: bundle before leaf.
    const kept = revalidateSvid(previous, read.bundle, now);
    this.#offer.accept(kept, kept.bundle, undefined);
    return true;
  }

  #fail(error: AgentError): void {
    const now = this.deps.clock.now();
    this.#failures += 1;
    const waitMs = backoffMs(this.#failures, DEFAULT_BACKOFF, this.deps.random);
    this.#failure = { error, retryAt: now + waitMs };
    this.#lastError = { error, at: now };
    this.#offer.fail(error, now + waitMs);
    this.deps.metrics.record('file_read_failures_total', {});
    const inService = this.#offer.svid !== undefined && now < this.#offer.svid.notAfterAt;
    this.deps.log.warn(
      inService
        ? 'certificate files invalid, serving the previous ones'
        : 'no certificate from files yet, retrying',
      {
        files: this.#where,
        attempt: this.#failures,
        retryInSeconds: Math.round(waitMs / 100) / 10,
        cause: error,
      },
    );
  }

  #steps(): readonly PlanStep[] {
    const { svid } = this.#offer;
    return [
      ...(this.#failure
        ? [{ rule: 'retry', at: this.#failure.retryAt, detail: this.#failure.error.message }]
        : []),
      {
        rule: 'renewed by others',
        at: undefined,
        detail: `${this.#where}: read again on every change`,
      },
      ...(svid
        ? [
            {
              rule: 'certificate expires',
              at: svid.notAfterAt,
              detail: 'the earliest notAfter of its chain',
            },
          ]
        : []),
    ];
  }
}

/** Whether two readings are the same to a proxy: a key that was merely written in another format is. */
function sameIdentity(a: Svid, b: Svid): boolean {
  // Its end moves where a path to a root has ended or begun meanwhile.
  if (a.notAfterAt !== b.notAfterAt) return false;
  const sameBytes = (one: readonly Uint8Array[], other: readonly Uint8Array[]) =>
    one.length === other.length &&
    one.every((der, index) => Buffer.compare(der, other[index]!) === 0);
  return (
    a.bundle.version === b.bundle.version &&
    sameBytes([a.key.spkiDer, ...a.chainDer], [b.key.spkiDer, ...b.chainDer])
  );
}
