import type { Deps } from '../../agent/base/deps';
import type { AgentError } from '../../agent/base/errors';
import { type Watched, WatchedSource } from '../../agent/base/watched';
import {
  type Certificate,
  certificatesPem,
  foreignTrustDomain,
  parseCertificate,
} from '../../agent/identity/certificate';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import { rootsValidAt } from '../../agent/identity/valid-now';
import type { CaRoot } from '../../agent/trust/ca-root';
import { type FileTrust, followTrustFile } from '../../agent/trust/file-trust';
import type { SignRequest } from '../ca-client';
import {
  extendBundle,
  type LearnedRoot,
  mergeLearned,
  readAnnouncement,
  rootsOfReply,
} from './learned-roots';
import {
  type KeptRoots,
  learnedRootsDir,
  loadLearned,
  NOTHING_LEARNED,
  saveLearned,
} from './learned-roots-file';
import { type ProvenServer, rootsTaught, stillAnnounced } from './server-roots';

export interface LearningTrustOptions {
  /** The CA as in `--ca`. */
  readonly ca: string;
  /** Where its server is, `host:port`: what this server teaches of its own TLS is good for no other. */
  readonly address: string;
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
  /**
   * The roots that the server's TLS is judged by: those of the file as it was just read, and those that this server taught, for as long as what
   * vouched for them is in the file. TLS gets what of them is valid now. Those of the machine stay alone: whoever is in there has nothing to do with our certificates.
   */
  ofServer(file: CaRoot): CaRoot;
  /**
   * Takes what a reply may add to the bundle, which has changed when this returns, and to the roots of its server.
   *
   * @param server  Undefined where TLS says nothing of the mesh: none, or by the roots of the machine.
   */
  learn(
    certificatesDer: readonly Uint8Array[],
    request: SignRequest,
    server: ProvenServer | undefined,
  ): void;
  close(): Promise<void>;
}

/** Resolves when the file has been looked at, whatever was found. */
export async function openLearningTrust(
  options: LearningTrustOptions,
  deps: Deps,
): Promise<LearningTrust> {
  const { ca, address, path, stateDir, domains } = options;
  const dir = stateDir === undefined ? undefined : learnedRootsDir(stateDir, ca);
  const file = followTrustFile(path, domains, deps);
  await file.ready;
  const kept = dir === undefined ? NOTHING_LEARNED : await loadLearned(dir, address, deps);
  return new FileAndLearned(options, file, dir, kept, deps);
}

class FileAndLearned implements LearningTrust {
  readonly trust = new WatchedSource<TrustBundle | undefined>(undefined);
  readonly #stop: () => void;
  #kept: KeptRoots;
  #saving: Promise<void> = Promise.resolve();

  constructor(
    private readonly options: LearningTrustOptions,
    private readonly file: FileTrust,
    private readonly dir: string | undefined,
    kept: KeptRoots,
    private readonly deps: Deps,
  ) {
    this.#kept = kept;
    this.#stop = file.trust.subscribe(() => this.#combine());
  }

  problem(): AgentError | undefined {
    return this.file.problem();
  }

  refresh(): Promise<void> {
    return this.file.refresh();
  }

  ofServer(file: CaRoot): CaRoot {
    if (!file.bundle) return file;
    const now = this.deps.clock.now();
    const bundle = extendBundle(file.bundle, this.#kept.server, now);
    // TLS may try a dead certificate before its living self, which the server shows or the file holds.
    const { bundle: valid = bundle } = rootsValidAt(bundle, undefined, now);
    return valid.version === file.version
      ? file
      : { pem: certificatesPem(valid.rootsDer), bundle, version: valid.version };
  }

  learn(
    certificatesDer: readonly Uint8Array[],
    request: SignRequest,
    server: ProvenServer | undefined,
  ): void {
    const now = this.deps.clock.now();
    const announced =
      this.trust.value && readAnnouncement(certificatesDer, request, this.trust.value, now);
    if (!this.trust.value || !announced) return;
    const ours = { ...announced, roots: announced.roots.filter((each) => this.#isOurs(each)) };
    const learned = mergeLearned(
      this.#kept.learned,
      this.#told('root learned from the CA', rootsOfReply(ours, this.trust.value)),
    );
    const taught = server ? rootsTaught(ours, certificatesDer, request, server, now) : [];
    const still = stillAnnounced(this.#kept.server, announced);
    const serverRoots = mergeLearned(
      still,
      this.#told('root learned for the TLS server of the CA', taught),
    );
    if (learned === this.#kept.learned && serverRoots === this.#kept.server) return;
    const kept = { learned, server: serverRoots };
    this.#kept = kept;
    this.#combine();
    const { dir } = this;
    if (dir !== undefined)
      this.#saving = this.#saving.then(() =>
        saveLearned(dir, this.options.address, kept, this.deps),
      );
  }

  async close(): Promise<void> {
    this.#stop();
    await Promise.all([this.file.close(), this.#saving]);
  }

  #told(event: string, roots: readonly LearnedRoot[]): readonly LearnedRoot[] {
    const { ca, address } = this.options;
    for (const { der, voucher } of roots) {
      const { subject, sha256 } = parseCertificate(der, 'root');
      this.deps.log.info(event, { ca, address, subject, sha256, voucher });
    }
    return roots;
  }

  #isOurs(root: Certificate): boolean {
    const { ca, domains } = this.options;
    const named = domains && foreignTrustDomain(root, domains);
    if (named !== undefined)
      this.deps.log.debug('root of another trust domain not learned', {
        ca,
        subject: root.subject,
        trustDomain: named,
      });
    return named === undefined;
  }

  #combine(): void {
    const configured = this.file.trust.value;
    if (!configured) return;
    const bundle = extendBundle(configured, this.#kept.learned, this.deps.clock.now());
    if (bundle.version !== this.trust.value?.version) this.trust.set(bundle);
  }
}
