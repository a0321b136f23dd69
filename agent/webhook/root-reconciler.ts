import { acceptIssuer, type Issuer } from '../authority/issuer';
import { backoffMs, DEFAULT_BACKOFF, FailureRun } from '../base/backoff';
import type { Deps } from '../base/deps';
import { AgentError, type ErrorCode } from '../base/errors';
import { Secret } from '../base/secret';
import type { CertificateEngine } from '../identity/engine';

import type { KubeApi } from '../kube/kube-api';
import { isKubeStatus } from '../kube/kube-error';
import { kubePath } from '../kube/kube-path';
import { watchObject } from '../kube/watch-object';
import { CONFIGURATIONS, publishCaBundle } from './ca-bundle';
import {
  advance,
  formatSharedRoot,
  makeSharedRoot,
  nextStage,
  parseSharedRoot,
  type SecretContent,
  type SharedRoot,
  WEBHOOK_TRUST_DOMAIN,
} from './root-secret';
import { WebhookAuthority } from './webhook-authority';

export interface RootReconcilerOptions {
  readonly api: KubeApi;
  readonly engine: CertificateEngine;
  /** The Secret that all replicas share. */
  readonly namespace: string;
  readonly secret: string;
  /** The MutatingWebhookConfiguration that is to trust it. */
  readonly configuration: string;
  /** Called once, when there is a root that the API server has been told of. */
  onAuthority(authority: WebhookAuthority): Promise<void>;
}

interface KubeSecret {
  readonly metadata: {
    readonly resourceVersion: string;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly data?: Readonly<Record<string, string>>;
}

/** An API server that has just been told of a root may not have heard yet. */
const SETTLE_MS = 5_000;
/** Other replicas are as far as we are within seconds; until then the last root stays with the API server. */
const HOLD_MS = 5 * 60_000;
/** Whatever is not told of by a watch is found out by then. */
const LOOK_MS = 3_600_000;
const UNREACHABLE: readonly ErrorCode[] = ['ERR_CA_UNAVAILABLE', 'ERR_TIMEOUT'];
const BACKOFF = { ...DEFAULT_BACKOFF, maxMs: 15_000 };

/**
 * Keeps the webhook's root in a Secret that all replicas share, replaces it in stages, and keeps the API server told: it knows of a root
 * before anything is signed under it, and for as long as something may be. Any number of replicas may do so at once; each change is of the
 * version that was read, so one of them makes it and the others see it.
 *
 * It needs to get, watch and patch that one Secret, and that one MutatingWebhookConfiguration.
 */
export class RootReconciler {
  readonly #options: RootReconcilerOptions;
  readonly #deps: Deps;
  #authority: WebhookAuthority | undefined;
  #held: { readonly rootsDer: readonly Uint8Array[]; readonly untilAt: number } = {
    rootsDer: [],
    untilAt: 0,
  };
  #problem: AgentError | undefined;

  constructor(options: RootReconcilerOptions, deps: Deps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Why the API server may not accept what we show; undefined where it does. */
  problem(): AgentError | undefined {
    if (this.#problem) return this.#problem;
    return this.#authority
      ? undefined
      : new AgentError('ERR_CA_UNAVAILABLE', 'the root of the webhook has not been read yet');
  }

  /** The signer in use; undefined before there is one. */
  issuer(): Issuer | undefined {
    return this.#authority?.issuer;
  }

  /** Runs until the signal fires. */
  async run(signal: AbortSignal): Promise<void> {
    const { api, namespace, secret, configuration } = this.#options;
    const { clock, log, random } = this.#deps;
    let changed = new AbortController();
    const wake = () => changed.abort();
    const following = [
      watchObject(
        api,
        kubePath`/api/v1/namespaces/${namespace}/secrets`,
        secret,
        wake,
        this.#deps,
        signal,
      ),
      watchObject(api, CONFIGURATIONS, configuration, wake, this.#deps, signal),
    ];
    signal.addEventListener('abort', wake, { once: true });
    const failures = new FailureRun();
    while (!signal.aborted) {
      // Made anew before looking, so that a change meanwhile is not lost.
      changed = new AbortController();
      let untilAt: number;
      try {
        untilAt = Math.min(await this.#look(signal), clock.now() + LOOK_MS);
        failures.end();
        this.#problem = undefined;
      } catch (caught) {
        if (signal.aborted) break;
        const error = AgentError.from(caught);
        const waitMs = Math.max(
          backoffMs(failures.failed(error), BACKOFF, random),
          error.retryAfterMs ?? 0,
        );
        log.warn('webhook certificate reconcile failed', {
          retryInSeconds: Math.round(waitMs / 1_000),
          cause: error,
        });
        // What is in step stays so while nobody can be asked.
        if (this.#authority === undefined || !UNREACHABLE.includes(error.code))
          this.#problem = error;
        untilAt = clock.now() + waitMs;
      }
      await clock.sleepUntil(untilAt, changed.signal).catch(() => undefined);
    }
    await Promise.all(following);
  }

  /** Brings everything in step with the Secret. Resolves to when the next stage is due. */
  async #look(signal: AbortSignal): Promise<number> {
    const { clock } = this.#deps;
    const { root, at } = await this.#stage(signal);
    const issuer = await this.#accept(root);
    const last = this.#authority?.issuer;
    const another = last !== undefined && last.version !== issuer.version;
    if (another) this.#held = { rootsDer: last.bundle.rootsDer, untilAt: clock.now() + HOLD_MS };
    const held = this.#held.untilAt > clock.now() ? this.#held.rootsDer : [];
    const { api, configuration } = this.#options;
    const published = await publishCaBundle(
      api,
      configuration,
      { roots: issuer.bundle.rootsDer, kept: held },
      signal,
    );
    if (published === 'changed')
      this.#deps.log.info('webhook configuration caBundle updated', { configuration });
    if (another && published === 'changed') await clock.sleepUntil(clock.now() + SETTLE_MS, signal);
    await this.#use(issuer);
    return held.length === 0 ? at : Math.min(at, this.#held.untilAt);
  }

  async #use(issuer: Issuer): Promise<void> {
    if (this.#authority) return this.#authority.use(issuer);
    const authority = new WebhookAuthority(issuer, this.#options.engine, this.#deps);
    await this.#options.onAuthority(authority);
    this.#authority = authority;
  }

  /** The root as it is in the Secret, after whatever stage is due has been entered there, by us or by another replica. */
  async #stage(signal: AbortSignal): Promise<{ readonly root: SharedRoot; readonly at: number }> {
    const { engine } = this.#options;
    for (;;) {
      const now = this.#deps.clock.now();
      const { content, version } = await this.#read(signal);
      const root = this.#parse(content);
      const stage = root && nextStage(root);
      if (root && stage && stage.dueAt > now) return { root, at: stage.dueAt };
      if (root?.next) await this.#accept({ ...root, signer: root.next });
      const made = root ? await advance(root, engine, now) : await makeSharedRoot(engine, now);
      if (await this.#write(made, version, signal)) {
        this.#deps.log.info('webhook root stage advanced', {
          secret: this.#options.secret,
          stage: stage?.kind ?? 'make',
        });
      }
    }
  }

  async #read(
    signal: AbortSignal,
  ): Promise<{ readonly content: SecretContent; readonly version: string }> {
    try {
      const { metadata, data = {} } = await this.#options.api.request<KubeSecret>(
        'GET',
        this.#path,
        { signal },
      );
      return {
        content: { data, annotations: metadata.annotations ?? {} },
        version: metadata.resourceVersion,
      };
    } catch (caught) {
      if (!isKubeStatus(caught, 404)) throw caught;
      throw new AgentError('ERR_CA_STATE', `read ${this.#name}: it is not there`, {
        retry: 'soon',
        cause: caught,
        hint: 'apply scripts/deploy/webhook, or name another with --secret',
      });
    }
  }

  /** False where another replica was faster. */
  async #write(root: SharedRoot, resourceVersion: string, signal: AbortSignal): Promise<boolean> {
    const { data, annotations } = formatSharedRoot(root);
    try {
      await this.#options.api.request('PATCH', this.#path, {
        body: { metadata: { resourceVersion, annotations }, data },
        signal,
      });
      return true;
    } catch (caught) {
      if (isKubeStatus(caught, 409)) return false;
      throw caught;
    }
  }

  #parse(content: SecretContent): SharedRoot | undefined {
    try {
      return parseSharedRoot(content);
    } catch (caught) {
      throw this.#refused(caught);
    }
  }

  async #accept({ signer, rootsPem }: SharedRoot): Promise<Issuer> {
    // What is judged is wiped.
    const keyPem = new Secret(Buffer.from(signer.keyPem.reveal()));
    try {
      const files = {
        dir: this.#options.secret,
        keyPem,
        certPem: signer.certPem,
        chainPem: Buffer.alloc(0),
        rootPem: rootsPem,
      };
      return await acceptIssuer(
        files,
        { trustDomain: WEBHOOK_TRUST_DOMAIN },
        this.#options.engine,
        this.#deps.clock.now(),
      );
    } catch (caught) {
      throw this.#refused(caught);
    }
  }

  get #name(): string {
    return `Secret ${this.#options.namespace}/${this.#options.secret}`;
  }

  get #path(): string {
    const { namespace, secret } = this.#options;
    return kubePath`/api/v1/namespaces/${namespace}/secrets/${secret}`;
  }

  /** A Secret that cannot be used. What stands in it is nobody's business but its field's. */
  #refused(caught: unknown): AgentError {
    const error = AgentError.from(caught);
    if (error.field === undefined || error.rule === undefined) return error;
    return new AgentError('ERR_CA_STATE', `read ${this.#name}: ${error.field}: ${error.rule}`, {
      retry: 'slow',
      field: error.field,
      rule: error.rule,
      hint: 'remove its data; a new root is created and published in the caBundle',
    });
  }
}
