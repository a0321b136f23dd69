import type { Deps } from '../../agent/base/deps';
import type { AgentError } from '../../agent/base/errors';
import { type Watched, WatchedSource } from '../../agent/base/watched';
import { foreignTrustDomain, parseCertificate } from '../../agent/identity/certificate';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import type { SignRequest } from '../ca-client';
import { type FileTrust, followTrustFile } from '../file-trust';
import { extendBundle, type LearnedRoot, mergeLearned, rootsOfReply } from './learned-roots';
import { learnedRootsDir, loadLearned, saveLearned } from './learned-roots-file';

export interface LearningTrustOptions {
  /** The CA as in `--ca`. */
  readonly ca: string;
  /** PEM file of the configured roots. */
  readonly path: string;
  /** Where learned roots are kept over restarts; nowhere without it. */
  readonly stateDir: string | undefined;
  /** The trust domains whose roots are taken, from the file and from replies. */
  readonly domains: ReadonlySet<string> | undefined;
}

/** The configured roots with what replies have added to them. */
export interface LearningTrust {
  readonly trust: Watched<TrustBundle | undefined>;
  problem(): AgentError | undefined;
  /** Reads the file again now. Never throws. */
  refresh(): Promise<void>;
  /** Takes what a reply may add; the bundle has changed when this returns. */
  learn(certificatesDer: readonly Uint8Array[], request: SignRequest): void;
  close(): Promise<void>;
}

/** Resolves when the file has been looked at, whatever was found. */
export async function openLearningTrust(options: LearningTrustOptions, deps: Deps): Promise<LearningTrust> {
  const { ca, path, stateDir, domains } = options;
  const dir = stateDir === undefined ? undefined : learnedRootsDir(stateDir, ca);
  const file = followTrustFile(path, domains, deps);
  await file.ready;
  return new FileAndLearned(ca, file, dir, dir === undefined ? [] : await loadLearned(dir, deps), domains, deps);
}

class FileAndLearned implements LearningTrust {
  readonly trust = new WatchedSource<TrustBundle | undefined>(undefined);
  readonly #stop: () => void;
  #learned: readonly LearnedRoot[];
  #saving: Promise<void> = Promise.resolve();

  constructor(
    private readonly ca: string,
    private readonly file: FileTrust,
    private readonly dir: string | undefined,
    learned: readonly LearnedRoot[],
    private readonly domains: ReadonlySet<string> | undefined,
    private readonly deps: Deps,
  ) {
    this.#learned = learned;
    this.#stop = file.trust.subscribe(() => this.#combine());
  }

  problem(): AgentError | undefined {
    return this.file.problem();
  }

  refresh(): Promise<void> {
    return this.file.refresh();
  }

  learn(certificatesDer: readonly Uint8Array[], request: SignRequest): void {
    if (!this.trust.value) return;
    const offered = rootsOfReply(certificatesDer, request, this.trust.value, this.deps.clock.now()).filter(({ der }) => this.#isOurs(der));
    const learned = mergeLearned(this.#learned, offered);
    if (learned === this.#learned) return;
    this.#learned = learned;
    for (const { der, voucher } of offered) {
      const { subject, sha256 } = parseCertificate(der, 'root');
      this.deps.log.info('root learned from the CA', { ca: this.ca, subject, sha256, voucher });
    }
    this.#combine();
    const { dir } = this;
    if (dir !== undefined) this.#saving = this.#saving.then(() => saveLearned(dir, learned, this.deps));
  }

  async close(): Promise<void> {
    this.#stop();
    await Promise.all([this.file.close(), this.#saving]);
  }

  #isOurs(der: Uint8Array): boolean {
    const root = parseCertificate(der, 'root');
    const named = this.domains && foreignTrustDomain(root, this.domains);
    if (named !== undefined)
      this.deps.log.debug('root of another trust domain not learned', { ca: this.ca, subject: root.subject, trustDomain: named });
    return named === undefined;
  }

  #combine(): void {
    const configured = this.file.trust.value;
    if (!configured) return;
    const bundle = extendBundle(configured, this.#learned, this.deps.clock.now());
    if (bundle.version !== this.trust.value?.version) this.trust.set(bundle);
  }
}
