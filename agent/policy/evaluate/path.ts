import { quoteRegex } from '../resources/quote-regex';
import { matchesRe2 } from './regex';

/** How a connection manager changes paths before filters see them. */
export interface PathOptions {
  readonly normalizes: boolean;
  readonly mergesSlashes: boolean;
  /** `envoy...HttpConnectionManager.PathWithEscapedSlashesAction`. */
  readonly escapedSlashes: string;
}

/** What became of a path: what filters see, or why the request is answered before them. */
export type SeenPath =
  | { readonly path: string }
  | { readonly status: number; readonly reason: string };

/**
 * A path as Envoy's filters see it. The query is kept and does not change.
 *
 * @see Envoy, "HTTP header sanitizing" and `normalize_path`, `merge_slashes`, `path_with_escaped_slashes_action`
 */
export function seenPath(path: string, options: PathOptions): SeenPath {
  if (path.includes('#')) return { status: 400, reason: 'a path with a fragment' };
  const at = path.indexOf('?');
  const query = at < 0 ? '' : path.slice(at);
  let seen = at < 0 ? path : path.slice(0, at);
  const escaped = /%(2f|5c)/i.test(seen);
  if (escaped && options.escapedSlashes === 'REJECT_REQUEST')
    return { status: 400, reason: 'a path with escaped slashes' };
  if (escaped && options.escapedSlashes.startsWith('UNESCAPE_')) {
    seen = seen.replace(/%2f/gi, '/').replace(/%5c/gi, '\\');
    if (options.escapedSlashes === 'UNESCAPE_AND_REDIRECT')
      return { status: 307, reason: 'a path with escaped slashes' };
  }
  if (options.normalizes) {
    if (seen.includes('%00')) return { status: 400, reason: 'a path with %00' };
    seen = normalized(seen);
  }
  if (options.mergesSlashes) seen = seen.replace(/\/{2,}/g, '/');
  return { path: seen + query };
}

/** Backslashes are slashes, and segments of dots go, `%2e` being a dot. Other escapes stay. */
function normalized(path: string): string {
  const segments = path.replaceAll('\\', '/').split('/').slice(1);
  const out: string[] = [];
  for (const [index, segment] of segments.entries()) {
    const isLast = index === segments.length - 1;
    const dots = segment.replace(/%2e/gi, '.');
    if (dots === '..') out.pop();
    if (dots !== '.' && dots !== '..') out.push(segment);
    else if (isLast) out.push('');
  }
  return `/${out.map(escapedSegment).join('/')}`;
}

/** What has no place in a path is escaped, and escapes of unreserved characters are undone. */
function escapedSegment(segment: string): string {
  return segment
    .replace(/%([0-9a-f]{2})/gi, (all, hex) => {
      const char = String.fromCharCode(Number.parseInt(hex, 16));
      return /[A-Za-z0-9\-._~]/.test(char) ? char : all;
    })
    .replace(/[^!-~]|["<>^`{|}]/gu, (char) => encodeURIComponent(char));
}

export function withoutQuery(path: string): string {
  return /^[^?#]*/.exec(path)![0];
}

const LITERAL = "a-zA-Z0-9\\-._~%!$&'()+,;:@=";
const OPERATORS: ReadonlyMap<string, string> = new Map([
  ['**', `[${LITERAL}/]*`],
  ['*', `[${LITERAL}]+`],
]);

/**
 * Whether a path matches `envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig`: `*` is one segment, `**`
 * any number of them.
 */
export function matchesTemplate(template: string, path: string): boolean {
  const regex = template
    .split(/(\*\*|\*|\{[^}]*\})/)
    .map((part) => {
      const operator = OPERATORS.get(part);
      if (operator !== undefined) return operator;
      const variable = /^\{(\w+)(?:=(.*))?\}$/.exec(part);
      if (variable) return templateRegex(variable[2] ?? '*');
      return quoteRegex(part);
    })
    .join('');
  return matchesRe2(regex, withoutQuery(path));
}

function templateRegex(match: string): string {
  return match
    .split('/')
    .map((part) => OPERATORS.get(part) ?? part)
    .join('/');
}
