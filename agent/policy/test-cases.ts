import { readYamlDocuments } from '../base/yaml-documents';
import { objectOf, objectsOf, textOf } from './resources/fields';
import { formatPath, type Problem } from './resources/problem';
import type { JsonObject, Source } from './resources/resource';
import { anything, choice, integer, list, map, message, text } from './resources/shapes';
import { Taker } from './resources/take';

/** A request, and what must become of it. */
export interface PolicyCase {
  readonly name: string;
  readonly source: Source;
  /** SPIFFE ID of the caller; undefined for plain text. */
  readonly from: string | undefined;
  readonly to: number;
  readonly method: string;
  readonly path: string;
  readonly host: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly ip: string | undefined;
  readonly serverName: string;
  /** A token, or its claims, which are trusted. */
  readonly jwt: string | JsonObject | undefined;
  readonly expect: Expected;
  /** NAMESPACE/NAME of the policy that must decide; undefined where any may. */
  readonly by: string | undefined;
}

/** `deny` is any answer that is no permission but `401`, a refused connection included. */
export type Expected = 'allow' | 'deny' | '401' | 'ask';

const CASE = message({
  name: text,
  from: text,
  to: integer,
  method: text,
  path: text,
  host: text,
  headers: map(text),
  ip: text,
  sni: text,
  jwt: anything,
  expect: anything,
  by: text,
});
const FILE = message({ cases: list(CASE) });
const EXPECTED = choice('allow', 'deny', '401', 'ask');

/** Reads the cases of a file; with a problem none of them must be counted as passed. */
export function readPolicyCases(
  name: string,
  content: string,
): { readonly cases: readonly PolicyCase[]; readonly problems: readonly Problem[] } {
  const read = readYamlDocuments(content);
  if ('reason' in read) {
    const source = { file: name, line: read.line };
    return { cases: [], problems: [{ source, path: '', message: `is not YAML: ${read.reason}` }] };
  }
  const problems: Problem[] = [];
  const cases = read.flatMap(({ value, lineOf }) => {
    const sourceOf = (path: Parameters<typeof lineOf>[0]) => ({ file: name, line: lineOf(path) });
    const taker = new Taker((path, rule, hint) =>
      problems.push({ source: sourceOf(path), path: formatPath(path), message: rule, hint }),
    );
    const all = objectsOf(objectOf(taker.take(value, FILE, [])).cases);
    return all.flatMap((each, index) => {
      const at = ['cases', index] as const;
      for (const field of ['from', 'to', 'expect'])
        if (each[field] === undefined)
          problems.push({
            source: sourceOf(at),
            path: formatPath([...at, field]),
            message: 'is missing',
            hint: field === 'from' ? 'write a SPIFFE ID, or plain' : undefined,
          });
      const expected = taker.take(String(each.expect ?? ''), EXPECTED, [...at, 'expect']);
      return expected === undefined ? [] : [caseOf(each, expected as Expected, sourceOf(at))];
    });
  });
  return { cases, problems };
}

function caseOf(each: JsonObject, expect: Expected, source: Source): PolicyCase {
  const { from, jwt } = each;
  const method = textOf(each.method) ?? 'GET';
  const path = textOf(each.path) ?? '/';
  return {
    name: textOf(each.name) ?? `${String(from)} to ${String(each.to)} ${method} ${path}`,
    source,
    from: from === 'plain' ? undefined : textOf(from),
    to: Number(each.to),
    method,
    path,
    host: textOf(each.host) ?? 'localhost',
    headers: Object.entries(objectOf(each.headers)).map(([name, value]) => [
      name.toLowerCase(),
      String(value),
    ]),
    ip: textOf(each.ip),
    serverName: textOf(each.sni) ?? '',
    jwt: typeof jwt === 'string' ? jwt : jwt === undefined ? undefined : objectOf(jwt),
    expect,
    by: textOf(each.by),
  };
}
