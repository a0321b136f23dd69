import { backoffMs, DEFAULT_BACKOFF } from '../../agent/base/backoff';
import type { Deps } from '../../agent/base/deps';
import { AgentError } from '../../agent/base/errors';
import { formatSpiffeId } from '../../agent/identity/spiffe-id';
import { type ApproverPolicy, judgePod, judgeRequest, type KubePod, type Requester } from './approver-rules';
import { CSR_PATH, type CsrCondition, conditionOf, type KubeCsr } from './csr-object';
import type { KubeApi } from './kube-api';
import { isKubeStatus } from './kube-error';

export interface ApproverOptions extends ApproverPolicy {
  readonly api: KubeApi;
  /** Requests to other signers are none of our business. */
  readonly signerName: string;
}

const PAGE = 500;
/** Requests that are judged at once. */
const PARALLEL = 8;
/** Every agent waits for it, so it looks again soon. */
const BACKOFF = { ...DEFAULT_BACKOFF, maxMs: 15_000 };

/** A server that ends watches as soon as they begin is not asked without end. */
const WATCH_AGAIN_MS = 500;

interface CsrList {
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string };
  readonly items: readonly KubeCsr[];
}

/**
 * Approves the requests to one signer that ask for their sender's own identity, and denies the others with the reason. It holds no state: what is undecided when it starts is decided then, and any number of replicas may run, for a decision is made
 * once by the API server's optimistic concurrency.
 *
 * It needs to get, list and watch certificatesigningrequests, to update their `approval`, to `approve` for the signer, and to get pods.
 */
export class Approver {
  #watching = false;
  #problem: AgentError | undefined = new AgentError('ERR_CA_UNAVAILABLE', 'follow requests: not yet begun', { retry: 'soon' });
  readonly #desk: Desk;

  constructor(
    private readonly options: ApproverOptions,
    private readonly deps: Deps,
  ) {
    this.#desk = new Desk(options, deps);
  }

  /** Why no requests reach us now; undefined where they do, also for the moment between two watches. */
  problem(): AgentError | undefined {
    return this.#problem;
  }

  /** Whether the API server tells us of requests at this moment. */
  get watching(): boolean {
    return this.#watching;
  }

  /** Requests that are waiting or being decided. */
  get undecided(): number {
    return this.#desk.size;
  }

  /** Resolves when the signal has fired and the last decision is over. */
  async run(signal: AbortSignal): Promise<void> {
    const { options, deps } = this;
    deps.log.info('approver started', { signer: options.signerName, trustDomain: options.trustDomain, server: options.api.server });
    for (let failures = 0; !signal.aborted; ) {
      let waitMs = WATCH_AGAIN_MS;
      try {
        await this.#follow(signal, () => {
          failures = 0;
        });
      } catch (caught) {
        if (signal.aborted) break;
        failures += 1;
        waitMs = this.#failed(caught, failures);
      }
      await deps.clock.sleepUntil(deps.clock.now() + waitMs, signal).catch(() => undefined);
    }
    await this.#desk.closed();
  }

  /** One list and one watch; `onOpen` when both were granted. */
  async #follow(signal: AbortSignal, onOpen: () => void): Promise<void> {
    const put = (csr: KubeCsr) => this.#desk.put(csr, signal);
    const version = await listRequests(this.options, put, signal);
    const opened = () => {
      onOpen();
      this.#watching = true;
      this.#problem = undefined;
    };
    await watchRequests(this.options, version, put, signal, opened).finally(() => {
      this.#watching = false;
    });
  }

  /** Returns how long to wait. */
  #failed(caught: unknown, failures: number): number {
    const error = AgentError.from(caught);
    const waitMs = Math.max(backoffMs(failures, BACKOFF, this.deps.random), error.retryAfterMs ?? 0);
    // A watch that began too long ago is no event.
    if (isKubeStatus(caught, 410)) return waitMs;
    this.#problem = error;
    this.deps.metrics.record('approver_failures_total', { operation: 'follow', code: error.code });
    this.deps.log.warn('requests cannot be followed', { retryInSeconds: waitMs / 1_000, cause: error });
    return waitMs;
  }
}

const selectorOf = (signerName: string) => `fieldSelector=${encodeURIComponent(`spec.signerName=${signerName}`)}`;

/** Resolves to the version to watch from. */
async function listRequests({ api, signerName }: ApproverOptions, each: (csr: KubeCsr) => void, signal: AbortSignal): Promise<string> {
  for (let page = ''; ; ) {
    const path = `${CSR_PATH}?${selectorOf(signerName)}&limit=${PAGE}${page}`;
    const { metadata, items } = await api.request<CsrList>('GET', path, { signal });
    items.forEach(each);
    if (!metadata.continue) return metadata.resourceVersion;
    page = `&continue=${encodeURIComponent(metadata.continue)}`;
  }
}

async function watchRequests(
  { api, signerName }: ApproverOptions,
  version: string,
  each: (csr: KubeCsr) => void,
  signal: AbortSignal,
  onOpen: () => void,
): Promise<void> {
  await api.watch<KubeCsr>(
    `${CSR_PATH}?${selectorOf(signerName)}&resourceVersion=${encodeURIComponent(version)}`,
    ({ type, object }) => {
      if (type === 'ADDED' || type === 'MODIFIED') each(object);
    },
    signal,
    onOpen,
  );
}

/** Decides what is put on it, a few at a time, each until it is decided. */
class Desk {
  readonly #queue: KubeCsr[] = [];
  /** By uid: waiting or being decided. */
  readonly #known = new Set<string>();
  readonly #working = new Set<Promise<void>>();

  constructor(
    private readonly options: ApproverOptions,
    private readonly deps: Deps,
  ) {}

  get size(): number {
    return this.#known.size;
  }

  put(csr: KubeCsr, signal: AbortSignal): void {
    if (isDecided(csr) || this.#known.has(csr.metadata.uid)) return;
    this.#known.add(csr.metadata.uid);
    this.#queue.push(csr);
    if (this.#working.size >= PARALLEL) return;
    const work = this.#work(signal).finally(() => this.#working.delete(work));
    this.#working.add(work);
  }

  async closed(): Promise<void> {
    await Promise.allSettled(this.#working);
  }

  async #work(signal: AbortSignal): Promise<void> {
    for (let csr = this.#queue.shift(); csr && !signal.aborted; csr = this.#queue.shift()) await this.#decideUntilDone(csr, signal);
  }

  async #decideUntilDone(csr: KubeCsr, signal: AbortSignal): Promise<void> {
    const { api } = this.options;
    const { name, uid } = csr.metadata;
    let latest: KubeCsr | undefined = csr;
    for (let failures = 0; !signal.aborted; ) {
      try {
        latest ??= await api.request<KubeCsr>('GET', `${CSR_PATH}/${name}`, { signal });
        if (!isDecided(latest) && latest.metadata.uid === uid) await this.#decide(latest, signal);
        break;
      } catch (caught) {
        if (isKubeStatus(caught, 404) || signal.aborted) break;
        latest = undefined;
        failures += 1;
        // Another replica was faster, most likely: look again.
        if (isKubeStatus(caught, 409) && failures === 1) continue;
        const error = AgentError.from(caught);
        const waitMs = Math.max(backoffMs(failures, BACKOFF, this.deps.random), error.retryAfterMs ?? 0);
        this.deps.metrics.record('approver_failures_total', { operation: 'decide', code: error.code });
        this.deps.log.warn('request cannot be decided', { request: name, retryInSeconds: waitMs / 1_000, cause: error });
        await this.deps.clock.sleepUntil(this.deps.clock.now() + waitMs, signal).catch(() => undefined);
      }
    }
    this.#known.delete(uid);
  }

  /** One decision, one line that says it, and its count. */
  async #decide(csr: KubeCsr, signal: AbortSignal): Promise<void> {
    const facts = { request: csr.metadata.name, requester: csr.spec.username, expirationSeconds: csr.spec.expirationSeconds };
    let approval: { readonly id: string; readonly pod: string | undefined };
    try {
      const { requester, id } = await judgeRequest(csr, this.options);
      judgePod(requester, await this.#podOf(requester, signal));
      approval = { id: formatSpiffeId(id), pod: requester.pod?.name };
    } catch (caught) {
      if (!isDenial(caught)) throw caught;
      await this.#write(csr, { type: 'Denied', status: 'True', reason: 'KeyturnPolicy', message: caught.message }, signal);
      this.deps.metrics.record('approver_decisions_total', { decision: 'denied', reason: caught.field ?? 'none' });
      this.deps.log.warn('request denied', { ...facts, field: caught.field, rule: caught.rule });
      return;
    }
    const message = `the requester is ${approval.id}`;
    await this.#write(csr, { type: 'Approved', status: 'True', reason: 'KeyturnPolicy', message }, signal);
    this.deps.metrics.record('approver_decisions_total', { decision: 'approved', reason: 'none' });
    this.deps.log.info('request approved', { ...facts, ...approval });
  }

  async #podOf({ namespace, pod }: Requester, signal: AbortSignal): Promise<KubePod | undefined> {
    if (!pod) return undefined;
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(pod.name)}`;
    try {
      return await this.options.api.request<KubePod>('GET', path, { signal });
    } catch (caught) {
      if (isKubeStatus(caught, 404)) return undefined;
      throw caught;
    }
  }

  /** Fails with 409 where the object has changed since it was read: then somebody else may have decided. */
  async #write(csr: KubeCsr, condition: CsrCondition, signal: AbortSignal): Promise<void> {
    const conditions = [...(csr.status?.conditions ?? []), condition];
    const body = { ...csr, apiVersion: 'certificates.k8s.io/v1', kind: 'CertificateSigningRequest', status: { ...csr.status, conditions } };
    await this.options.api.request('PUT', `${CSR_PATH}/${csr.metadata.name}/approval`, { body, signal });
  }
}

/** A rule that the request breaks, as opposed to whatever kept us from judging it. */
function isDenial(caught: unknown): caught is AgentError {
  return caught instanceof AgentError && caught.code === 'ERR_CA_REJECTED' && caught.rule !== undefined;
}

function isDecided(csr: KubeCsr): boolean {
  return conditionOf(csr, 'Approved') !== undefined || conditionOf(csr, 'Denied') !== undefined;
}
