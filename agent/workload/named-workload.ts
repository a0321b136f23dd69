import { basename, dirname } from 'node:path';
import type { WorkloadStatus, WorkloadView } from '../admin/agent-view';
import { unpublishDir } from '../base/atomic-dir';
import type { Deps } from '../base/deps';
import { removeDirectory } from '../base/open-directory';
import type { Config } from '../config/config';
import type { Version } from '../config/workload-plan';
import type { CertSource } from '../identity/cert-state';
import { formatSpiffeId } from '../identity/spiffe-id';
import type { Svid } from '../identity/svid';
import { createCertSource } from './cert-source';
import { LiveSource } from './live-source';
import type { SharedCas } from './shared-cas';
import { servedSvid, startWorkload, type Workload } from './workload';

/** What every workload of a list is made with. */
export interface WorkloadMaking {
  readonly shared: SharedCas;
  readonly deps: Deps;
  /** How many workloads there are. */
  readonly count: () => number;
  /** Called after each change of what a workload offers. */
  readonly onChange: () => void;
}

/** One workload of a list, in the version of its settings that is in service. */
export class NamedWorkload implements Workload {
  #version: Version<Config>;

  private constructor(
    version: Version<Config>,
    private readonly live: LiveSource,
    private readonly workload: Workload,
    private readonly making: WorkloadMaking,
  ) {
    this.#version = version;
  }

  /**
   * Starts a workload.
   *
   * @param carried  The certificate that its identity has had.
   * @throws AgentError; nothing is left open.
   */
  static async start(
    version: Version<Config>,
    making: WorkloadMaking,
    carried?: Svid,
  ): Promise<NamedWorkload> {
    const named: { current?: NamedWorkload } = {};
    const log = making.deps.log.about(() => ({ workload: (named.current ?? version).name }));
    const own = { ...making, deps: { ...making.deps, log } };
    const live = new LiveSource(
      await createCertSource(version.config, making.shared, own.deps, carried),
      own.deps,
    );
    const parts = {
      source: live,
      get ca() {
        return live.ca;
      },
      revoked: (serial: string) => live.revoked(serial),
      sockets: making.count,
      closers: [],
    };
    live.state.subscribe(making.onChange);
    named.current = new NamedWorkload(
      version,
      live,
      await startWorkload(version.config, parts, making.shared, own.deps),
      own,
    );
    return named.current;
  }

  get name(): string {
    return this.#version.name;
  }

  get version(): Version<Config> {
    return this.#version;
  }

  get source(): CertSource {
    return this.live;
  }

  get sds(): Workload['sds'] {
    return this.workload.sds;
  }

  view(): WorkloadView {
    return { name: this.name, ...this.workload.view() };
  }

  status(): WorkloadStatus {
    return { name: this.name, ...this.workload.status() };
  }

  reasons(): readonly string[] {
    return this.workload.reasons().map((reason) => `workload ${this.name}: ${reason}`);
  }

  /** The certificate in service, for another workload of the same identity to begin with. */
  carried(after: Config): Svid | undefined {
    const [before, next] = [this.#version.config.id, after.id];
    const same = before && next && formatSpiffeId(before) === formatSpiffeId(next);
    return same ? servedSvid(this.live.state.value) : undefined;
  }

  /** Takes a version on that differs in nothing that is open, e.g. in its name. */
  rename(after: Version<Config>): void {
    this.#version = after;
  }

  /**
   * Takes a version on whose certificates come from elsewhere; socket and streams stay.
   *
   * @throws AgentError; then the version before stays in service.
   */
  async changeSource(after: Version<Config>): Promise<void> {
    const { shared, deps } = this.making;
    this.live.replace(
      await createCertSource(after.config, shared, deps, this.carried(after.config)),
    );
    this.#version = after;
  }

  /** Ends its streams, and takes away its socket. */
  async close(): Promise<void> {
    await this.workload.close();
    // The directory that was made for the socket alone.
    const dir = dirname(this.#version.config.sdsSocket);
    if (basename(dir) !== this.name) return;
    try {
      removeDirectory(dir);
    } catch {
      // Somebody else's files are in it, or it has gone.
    }
  }

  /**
   * Takes away, of a closed workload, the certificate files that `after` no longer writes, where its settings want that.
   *
   * @throws AgentError ERR_OUTPUT.
   */
  async clear(after?: Config): Promise<void> {
    const { stateDir, outputCerts, onRemoval } = this.#version.config;
    if (onRemoval === 'keep') return;
    for (const dir of [stateDir, outputCerts]) {
      if (dir === undefined || dir === after?.stateDir || dir === after?.outputCerts) continue;
      await unpublishDir(dir);
      this.making.deps.log.info('certificate files deleted', { dir });
    }
  }
}
