import { invalid } from '../base/errors';

/**
 * A path of the Kubernetes API whose parts in `${}` are each one segment, encoded: names are other people's text, and Kubernetes allows
 * `\`, `#` and `?` in them. Every path that holds a name is made by it; `assertKubePath` refuses others before they are sent.
 *
 * @example kubePath`/api/v1/namespaces/${namespace}/pods/${name}`
 * @throws  AgentError ERR_PARSE for an empty segment, `.` and `..`: no encoding keeps those from meaning another path.
 * @see     apimachinery, api/validation/path: `IsValidPathSegmentName`.
 */
export function kubePath(texts: TemplateStringsArray, ...segments: readonly string[]): string {
  return texts.reduce((path, text, index) => path + encodeSegment(segments[index - 1]!) + text);
}

function encodeSegment(segment: string): string {
  if (segment === '' || segment === '.' || segment === '..') {
    throw invalid('ERR_PARSE', 'name of a Kubernetes object', `must not be "${segment}"`);
  }
  // A lone surrogate cannot be encoded, and no name that came as UTF-8 has one; as U+FFFD it names no object.
  return encodeURIComponent(segment.replace(/\p{Surrogate}/gu, '\ufffd'));
}

/**
 * A query that selects objects by a field, e.g. `fieldSelector=metadata.name%3Dcart`.
 *
 * @see apimachinery, fields: `EscapeValue`.
 */
export function fieldSelector(field: string, value: string): string {
  return `fieldSelector=${encodeURIComponent(`${field}=${value.replace(/[\\,=]/g, '\\$&')}`)}`;
}

/** RFC 3986 section 3.3 and 3.4: what a path and a query may be written with. */
const PATH = /^(\/[\w\-.~!$&'()*+,;=:@%]+)+$/;
const QUERY = /^[\w\-.~!$&'()*+,;=:@%/?]*$/;

/**
 * Refuses a path that was put together without `kubePath`.
 *
 * @throws AgentError ERR_BUG.
 */
export function assertKubePath(target: string): void {
  const at = target.indexOf('?');
  const [path, query] = at < 0 ? [target, ''] : [target.slice(0, at), target.slice(at + 1)];
  if (PATH.test(path) && QUERY.test(query) && !/\/\.\.?(\/|$)/.test(path)) return;
  throw invalid(
    'ERR_BUG',
    'path of a Kubernetes call',
    `must be encoded, not ${JSON.stringify(target.slice(0, 200))}`,
  );
}
