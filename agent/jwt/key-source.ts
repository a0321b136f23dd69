import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { waitAtMost, withDeadline } from '../base/clock';
import type { Deps } from '../base/deps';
import { AgentError, errorText, invalid, systemCode } from '../base/errors';
import { watchFiles } from '../base/file-watch';
import { readSmallFile } from '../base/read-file';
import { runtimeRoots } from '../base/runtime-roots';
import { certificatesPem, parseRootBundle } from '../identity/certificate';
import { type KeySet, parseKeySet, type TokenAlgorithm } from './key-set';

/** Where the keys of token issuers come from. */
export interface KeySource {
  /**
   * The keys as they are known now.
   *
   * @param unknownKey  Somebody shows a token of a key that is not among them: they may be asked for again.
   * @throws            AgentError ERR_CA_UNAVAILABLE where none were ever obtained, or those known are too old to go by.
   */
  keys(unknownKey?: boolean): Promise<KeySet>;
  close(): Promise<void>;
}

/** An issuer that rotates its keys publishes the new one long before it signs with it. */
const FRESH_MS = 5 * 60_000;
/** Between two looks because of tokens of unknown keys: anybody can make such tokens. */
const COOLDOWN_MS = 30_000;
/** As long as nobody answers, the last keys are gone by for so long: beyond, one that was withdrawn might still be among them. */
const STALE_MS = 60 * 60_000;
/** A slow server of keys is heard to its end; callers wait for the first five seconds only. */
const FETCH_MS = 60_000;
const CALLER_MS = 5_000;
const MAX_BYTES = 256 * 1024;
/** What OpenSSL says of a server whose root is not known here. */
const UNKNOWN_ISSUER = [
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
];

/** Where keys are, and by whom the way there is vouched for. */
export interface KeyPlace {
  /** An `https` URL, an `http` URL of this machine itself, or the path of a file, which is followed. */
  readonly jwks: string;
  /** PEM file of the roots that an `https` server is judged by, read for every fetch; default those of the runtime. */
  readonly jwksCa?: string | undefined;
}

/**
 * Looks whether keys may come from there, before anything is made.
 *
 * @returns The URL; undefined for a file.
 * @throws  AgentError ERR_CONFIG for another URL; ERR_PARSE | ERR_INPUT where a file cannot be read.
 */
export async function checkKeyPlace({ jwks: place, jwksCa }: KeyPlace): Promise<URL | undefined> {
  const isHttps = /^https:\/\//i.test(place);
  if (jwksCa !== undefined && !isHttps)
    throw invalid('ERR_CONFIG', '--jwks-ca', 'needs an https URL for --jwks');
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(place)) {
    await readKeyFile(place);
    return undefined;
  }
  const url = URL.parse(place);
  const local = url !== null && ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname);
  if (url?.protocol !== 'https:' && !(url?.protocol === 'http:' && local)) {
    throw invalid(
      'ERR_CONFIG',
      '--jwks',
      'must be an https URL or a file: plain http lets an attacker replace the keys',
    );
  }
  // A file that cannot be used stops the start, not the first caller.
  if (jwksCa !== undefined) await readRoots(jwksCa);
  return url;
}

/** @throws AgentError as `checkKeyPlace`. */
export async function openKeySource(
  place: KeyPlace,
  algorithms: readonly TokenAlgorithm[],
  deps: Deps,
): Promise<KeySource> {
  const url = await checkKeyPlace(place);
  return url
    ? new UrlKeys(url, place.jwksCa, algorithms, deps)
    : followFile(place.jwks, algorithms, deps);
}

async function readKeyFile(path: string): Promise<string> {
  return (await readSmallFile(path, { field: '--jwks', code: 'ERR_INPUT' })).toString();
}

async function readRoots(path: string): Promise<Buffer> {
  const { bundle, skipped } = parseRootBundle(
    await readSmallFile(path, { field: '--jwks-ca', code: 'ERR_INPUT' }),
    '--jwks-ca',
  );
  if (skipped[0] !== undefined)
    throw invalid('ERR_PARSE', '--jwks-ca', `must hold CA certificates only: ${skipped[0]}`);
  return certificatesPem(bundle.rootsDer);
}

async function followFile(
  path: string,
  algorithms: readonly TokenAlgorithm[],
  deps: Deps,
): Promise<KeySource> {
  const read = async () => parseKeySet(await readKeyFile(path), '--jwks', algorithms);
  let current = await read();
  let reading: Promise<void> = Promise.resolve();
  const again = () => {
    reading = reading.then(async () => {
      try {
        const next = await read();
        if (next.kids.join() !== current.kids.join())
          deps.log.info('token keys changed', { kids: next.kids });
        current = next;
      } catch (cause) {
        deps.metrics.record('file_read_failures_total', {});
        deps.log.error('token keys invalid, keeping the previous ones', { path, cause });
      }
    });
  };
  const watch = await watchFiles([path], again, deps);
  // A change between the first read and the watch.
  again();
  return {
    keys: async () => {
      await reading;
      return current;
    },
    close: async () => {
      await watch.close();
      await reading;
    },
  };
}

class UrlKeys implements KeySource {
  readonly #stop = new AbortController();
  #known: { readonly keys: KeySet; readonly fetchedAt: number } | undefined;
  #triedAt = Number.NEGATIVE_INFINITY;
  #fetching: Promise<void> | undefined;

  constructor(
    private readonly url: URL,
    private readonly ca: string | undefined,
    private readonly algorithms: readonly TokenAlgorithm[],
    private readonly deps: Deps,
  ) {}

  async keys(unknownKey = false): Promise<KeySet> {
    const now = this.deps.clock.now();
    const age = now - (this.#known?.fetchedAt ?? Number.NEGATIVE_INFINITY);
    const rested = now - this.#triedAt >= (this.#known === undefined ? 1_000 : COOLDOWN_MS);
    if ((age >= FRESH_MS || unknownKey) && (rested || this.#fetching !== undefined)) {
      this.#fetching ??= this.#fetch(now);
      const waitMs = this.#triedAt + CALLER_MS - now;
      if (waitMs > 0) await waitAtMost(this.deps.clock, waitMs, this.#fetching);
    }
    if (this.#known === undefined || this.deps.clock.now() - this.#known.fetchedAt > STALE_MS) {
      throw new AgentError(
        'ERR_CA_UNAVAILABLE',
        `fetch token keys from ${this.url.href}: the response is too old`,
        { retry: 'soon' },
      );
    }
    return this.#known.keys;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#fetching;
  }

  async #fetch(now: number): Promise<void> {
    this.#triedAt = now;
    const { clock, log } = this.deps;
    try {
      const ca = this.ca === undefined ? undefined : await readRoots(this.ca);
      const text = await withDeadline(
        clock,
        FETCH_MS,
        'fetch token keys',
        this.#stop.signal,
        (signal) => fetchText(this.url, ca, signal),
      );
      const keys = await parseKeySet(text, '--jwks', this.algorithms);
      if (this.#known?.keys.kids.join() !== keys.kids.join())
        log.info('token keys fetched', { url: this.url.href, kids: keys.kids });
      this.#known = { keys, fetchedAt: clock.now() };
    } catch (cause) {
      log.warn('fetching token keys failed', { url: this.url.href, cause });
    } finally {
      this.#fetching = undefined;
    }
  }
}

/** One GET. A redirection is no answer: whoever configured the URL did not mean another. */
function fetchText(url: URL, ca: Buffer | undefined, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const fail = (why: string, cause?: unknown) => {
      const hint = UNKNOWN_ISSUER.includes(systemCode(cause) ?? '')
        ? { hint: 'name the roots of its server with --jwks-ca' }
        : {};
      reject(
        new AgentError('ERR_CA_UNAVAILABLE', `GET ${url.href}: ${why}`, {
          cause,
          retry: 'soon',
          ...hint,
        }),
      );
    };
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const options = {
      signal,
      agent: false,
      headers: { accept: 'application/json' },
      ca: ca ?? runtimeRoots(),
    };
    const request = send(url, options, (response) => {
      if (response.statusCode !== 200) {
        response.resume();
        return fail(`status ${response.statusCode}`);
      }
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        chunks.push(chunk);
        if (bytes > MAX_BYTES) request.destroy(new Error(`more than ${MAX_BYTES} bytes`));
      });
      response.on('end', () => resolve(Buffer.concat(chunks).toString()));
      response.on('error', (cause) => fail(errorText(cause), cause));
    });
    request.on('error', (cause) => fail(errorText(cause), cause));
    request.end();
  });
}
