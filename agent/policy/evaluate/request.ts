import type { JsonObject } from '../resources/resource';
import { isAddress } from './address';
import type { Headers } from './match';

/** A request to judge, as a client makes it. */
export interface PolicyRequest {
  /** SPIFFE ID of the client's certificate; undefined for plain text. */
  readonly from: string | undefined;
  readonly port: number;
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly host: string;
  /** Without pseudo-headers; names in lower case. */
  readonly headers: Headers;
  /** The client's address; conditions on it are false where undefined. */
  readonly ip: string | undefined;
  /** The workload's own address. */
  readonly localIp: string | undefined;
  /** SNI, empty where there is none. */
  readonly serverName: string;
}

/** Where a request comes from, as a connection manager believes it. */
export function remoteIpOf(request: PolicyRequest, manager: JsonObject): string | undefined {
  if (manager.originalIpDetectionExtensions !== undefined) return request.ip;
  const hops = Number(manager.xffNumTrustedHops ?? 0);
  const all = request.headers
    .flatMap(([name, value]) => (name === 'x-forwarded-for' ? [value] : []))
    .join(',')
    .split(',')
    .map((each) => each.trim());
  if (manager.useRemoteAddress === true) {
    if (hops === 0) return request.ip;
    return addressAt(all, hops - 1) ?? request.ip;
  }
  return addressAt(all, hops) ?? request.ip;
}

function addressAt(all: readonly string[], fromEnd: number): string | undefined {
  const found = all.at(-1 - fromEnd);
  return found !== undefined && isAddress(found) ? found : undefined;
}
