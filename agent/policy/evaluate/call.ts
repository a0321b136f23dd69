import type { JsonObject } from '../resources/resource';

/** A call whose verdict is asked for: a connection, and the request on it. */
export interface Call {
  /** The URI SAN of the peer's certificate; undefined for plain text. */
  readonly peer: string | undefined;
  readonly port: number;
  readonly serverName: string;
  /** The other end of the connection. */
  readonly directIp: string;
  /** Where the request comes from by x-forwarded-for; the other end where there is none. */
  readonly remoteIp: string;
  readonly destinationIp: string;
  /** Undefined where a connection alone is asked about. */
  readonly request: CallRequest | undefined;
}

export interface CallRequest {
  /** Names in lower case, `:method`, `:path` and `:authority` among them; one may stand there many times. */
  readonly headers: ReadonlyMap<string, readonly string[]>;
  /** What a verified token says, as the JWT filter leaves it; undefined without one. */
  readonly claims: JsonObject | undefined;
}

/** Whether something matched, and if not, the first thing that did not. */
export type Match = { readonly ok: true } | { readonly ok: false; readonly why: string };

export const MATCHED: Match = { ok: true };
export const missed = (why: string): Match => ({ ok: false, why });
export const matched = (ok: boolean, why: () => string): Match => (ok ? MATCHED : missed(why()));
