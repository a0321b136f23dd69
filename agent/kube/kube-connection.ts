import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { Agent, request } from 'node:https';
import type { Deps } from '../base/deps';
import { AgentError, errorText } from '../base/errors';
import { runtimeRoots } from '../base/runtime-roots';
import type { Secret } from '../base/secret';
import type { KubeConfig, KubeCredentials } from './kube-config';

/** One exchange, up to the head of the answer. */
export interface KubeExchange {
  readonly method: string;
  /** Path and query below the server's URL. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer | undefined;
}

/** Credentials are read again after so long, and at once after a 401 or a broken connection. */
const FRESH_MS = 10_000;
/** Connections that nobody uses are closed before the server (90 s) or a load balancer (often 60 s) does. */
const IDLE_MS = 30_000;

/** Connections to one API server, made with the credentials of now: changed files give new connections. */
export class KubeConnection {
  #agent: Agent | undefined;
  #agentVersion = '';
  #credentials: KubeCredentials | undefined;
  #freshUntil = 0;

  constructor(
    private readonly config: KubeConfig,
    private readonly deps: Deps,
  ) {}

  /**
   * Sends a request and resolves with the head of the answer; its body is the caller's to read or to destroy.
   *
   * @param renew  After a 401: credentials are read again first.
   * @throws       AgentError ERR_TOKEN where they cannot be read; ERR_CA_UNAVAILABLE; ERR_ABORTED.
   */
  async send(
    exchange: KubeExchange,
    renew: boolean,
    signal: AbortSignal,
  ): Promise<{ answer: IncomingMessage; token: Secret<string> | undefined }> {
    const credentials = await this.#current(renew, signal);
    const { token } = credentials;
    try {
      return {
        answer: await this.#exchange(exchange, this.#agentFor(credentials), token, signal),
        token,
      };
    } catch (caught) {
      // The files behind them may have been replaced: the next request looks.
      this.#freshUntil = 0;
      throw caught;
    }
  }

  close(): void {
    this.#agent?.destroy();
  }

  async #current(renew: boolean, signal: AbortSignal): Promise<KubeCredentials> {
    if (!this.#credentials || renew || this.deps.clock.now() >= this.#freshUntil) {
      this.#credentials = await this.config.credentials(renew, signal);
      this.#freshUntil = this.deps.clock.now() + FRESH_MS;
    }
    return this.#credentials;
  }

  #agentFor({ caPem, client }: KubeCredentials): Agent {
    const hash = createHash('sha256');
    for (const part of [caPem, client?.certificatePem, client?.keyPem.reveal()])
      hash.update(`${part?.length}:`).update(part ?? '');
    const version = hash.digest('hex');
    if (!this.#agent || version !== this.#agentVersion) {
      // Watches and requests that are under way keep their sockets; what is idle goes.
      const previous = this.#agent;
      this.#agent = new Agent({
        keepAlive: true,
        timeout: IDLE_MS,
        maxFreeSockets: 8,
        minVersion: 'TLSv1.2',
        rejectUnauthorized: true,
        ca: caPem ?? runtimeRoots(),
        ...(client && { cert: client.certificatePem, key: client.keyPem.reveal() }),
        ...(this.config.serverName !== undefined && { servername: this.config.serverName }),
      });
      this.#agentVersion = version;
      for (const socket of Object.values(previous?.freeSockets ?? {}).flat()) socket?.destroy();
    }
    return this.#agent;
  }

  #exchange(
    exchange: KubeExchange,
    agent: Agent,
    token: Secret<string> | undefined,
    signal: AbortSignal,
  ): Promise<IncomingMessage> {
    const { method, path, body } = exchange;
    return new Promise((done, failed) => {
      const headers = {
        ...exchange.headers,
        ...(token && { authorization: `Bearer ${token.reveal()}` }),
        ...(body && { 'content-length': String(body.length) }),
      };
      const call = request(
        `${this.config.server}${path}`,
        { method, agent, headers, signal },
        done,
      );
      // Stays for the life of the socket: an error after the answer began reaches the reader of the answer as well.
      call.on('error', (caught) =>
        failed(this.#failure(`${method} ${pathOnly(path)}`, caught, signal)),
      );
      call.end(body);
    });
  }

  #failure(what: string, caught: unknown, signal: AbortSignal): AgentError {
    if (signal.aborted) return new AgentError('ERR_ABORTED', `${what}: aborted`);
    return new AgentError(
      'ERR_CA_UNAVAILABLE',
      `${what} at ${this.config.server}: ${errorText(caught)}`,
      { retry: 'soon', cause: caught },
    );
  }
}

/** A path without its query, for messages. */
export function pathOnly(path: string): string {
  return path.split('?', 1)[0]!;
}
