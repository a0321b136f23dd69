import type { CaClient, IssuedChain } from '../../ca-client/ca-client';
import { withDeadline } from '../base/clock';
import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import type { CertificateEngine } from '../identity/engine';
import type { KeyAlgorithm } from '../identity/keys';
import type { SpiffeId } from '../identity/spiffe-id';
import { acceptIssuedChain, type Svid } from '../identity/svid';

/** What one certificate is made from. */
export interface IssueOptions {
  readonly ca: CaClient;
  readonly id: SpiffeId;
  readonly engine: CertificateEngine;
  readonly keyAlgorithm: KeyAlgorithm;
  /** What is asked for, milliseconds; the CA decides. */
  readonly ttlMs: number;
  /** Waits until this attempt may begin, where others ask the same CA; returns what is to be called at its end. */
  readonly turn?: ((signal: AbortSignal) => Promise<() => void>) | undefined;
}

/** How long a CA may take to answer one request; the next attempt starts over with a new key. */
const SIGN_DEADLINE_MS = 10_000;
/** For the rest of an attempt: an RSA-4096 key on a slow machine takes its time. */
const KEY_DEADLINE_MS = 50_000;

/**
 * One attempt: a new key, a CSR for it, the CA's answer, the gate. The key lives and dies with its attempt, so an answer that comes after
 * its deadline belongs to nobody and can never become current.
 *
 * @throws AgentError of the CA; ERR_TIMEOUT after 10 s (or the CA's own deadline) without an answer; ERR_CA_RESPONSE from the gate; ERR_ABORTED.
 */
export async function issueSvid(options: IssueOptions, deps: Deps, signal: AbortSignal): Promise<Svid> {
  const leave = await options.turn?.(signal);
  try {
    return await issueNow(options, deps, signal);
  } finally {
    leave?.();
  }
}

function issueNow(options: IssueOptions, deps: Deps, signal: AbortSignal): Promise<Svid> {
  return withDeadline(deps.clock, KEY_DEADLINE_MS + signDeadlineMs(options), `certificate from ${options.ca.name}`, signal, async (all) => {
    const { ca, id, engine } = options;
    const key = await engine.generateKeyPair(options.keyAlgorithm);
    const csrDer = await engine.createCsr(key, id);
    const reply = await sign(options, csrDer, deps, all);
    // Read after the answer: a bundle that changed meanwhile is the one that peers judge by.
    const trust = ca.trust.value;
    if (!trust) throw new AgentError('ERR_CA_UNAVAILABLE', `sign: the trust bundle of ${ca.name} is not known yet`, { retry: 'soon' });
    return acceptIssuedChain({ id, key, source: reply.source ?? ca.name }, reply.certificatesDer, trust, deps.clock.now());
  });
}

async function sign(options: IssueOptions, csrDer: Uint8Array, deps: Deps, signal: AbortSignal): Promise<IssuedChain> {
  const { ca, id } = options;
  const startedAt = deps.clock.now();
  const record = (outcome: string) =>
    deps.metrics.record('ca_request_duration_seconds', { ca: ca.name, outcome }, Math.max(deps.clock.now() - startedAt, 0) / 1_000);
  try {
    const request = { id, csrDer, ttlSeconds: Math.max(Math.round(options.ttlMs / 1_000), 1) };
    const reply = await withDeadline(deps.clock, signDeadlineMs(options), `sign at ${ca.name}`, signal, (each) => ca.sign(request, each));
    record('ok');
    return reply;
  } catch (caught) {
    record(AgentError.from(caught).code);
    throw caught;
  }
}

function signDeadlineMs({ ca }: IssueOptions): number {
  return ca.signDeadlineMs ?? SIGN_DEADLINE_MS;
}
