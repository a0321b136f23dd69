import type { Mesh } from '../mesh';
import type { JsonObject } from '../resources/resource';
import type { CallRequest } from './call';

/** A request as a person writes it. */
export interface RequestFacts {
  readonly method: string;
  readonly path: string;
  readonly host: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly claims: JsonObject | undefined;
}

/** The request as filters see it: the path as the mesh normalises it, headers by their names. */
export function requestOf(
  { method, path, host, headers, claims }: RequestFacts,
  normalization: Mesh['pathNormalization'],
): CallRequest {
  const all = new Map([
    [':method', [method]],
    [':path', [normalizePath(path, normalization)]],
    [':authority', [host]],
  ]);
  for (const [name, value] of headers) {
    const key = name.toLowerCase();
    all.set(key, [...(all.get(key) ?? []), value]);
  }
  return { headers: all, claims };
}

/**
 * As Envoy does before any filter: dots are resolved, slashes merged, escaped slashes decoded, by the
 * mesh's option. The query stays as it is.
 *
 * @see Istio, MeshConfig.ProxyPathNormalization; envoy source/common/http/path_utility.cc
 */
export function normalizePath(path: string, normalization: Mesh['pathNormalization']): string {
  if (normalization === 'NONE') return path;
  const [, whole = '', rest = ''] = /^([^?#]*)(.*)$/s.exec(path) ?? [];
  const decoded =
    normalization === 'DECODE_AND_MERGE_SLASHES'
      ? whole.replace(/%2f/gi, '/').replace(/%5c/gi, '\\')
      : whole;
  const unescaped = decoded.replace(/%([0-9a-f]{2})/gi, (written, hex: string) => {
    const sign = String.fromCharCode(Number.parseInt(hex, 16));
    return /[\w\-.~]/.test(sign) ? sign : written;
  });
  const resolved = new URL(
    `http://host${unescaped.startsWith('/') ? '' : '/'}${unescaped}`,
  ).pathname
    .replaceAll('^', '%5E')
    .replaceAll('|', '%7C');
  const merges = normalization === 'MERGE_SLASHES' || normalization === 'DECODE_AND_MERGE_SLASHES';
  return (merges ? resolved.replace(/\/+/g, '/') : resolved) + rest;
}
