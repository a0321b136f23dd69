import { type AgentError, invalid } from '../base/errors';

/** What an API server asks about one object, as far as we look into it (admission.k8s.io/v1 AdmissionRequest). */
export interface AdmissionRequest {
  readonly uid: string;
  /** `group/version/Kind`; without a group `v1/Pod`. */
  readonly kind: string;
  /** e.g. `CREATE`. */
  readonly operation: string;
  /** e.g. `ephemeralcontainers`; empty for the object itself. */
  readonly subResource: string;
  /** Empty for what belongs to no namespace. */
  readonly namespace: string;
  /** Nothing will be kept of it. */
  readonly dryRun: boolean;
  /** The object as it would be, parsed. Whoever made the request wrote it. */
  readonly object: unknown;
}

/** The answer to one request. */
export type Verdict =
  /** `patch`: operations of RFC 6902, empty where the object stays as it is. */
  | {
      readonly kind: 'allowed';
      readonly patch: readonly object[];
      readonly warnings: readonly string[];
    }
  /** `status`: as an HTTP status, e.g. 400 for what cannot be understood, 422 for what cannot be done. */
  | { readonly kind: 'denied'; readonly status: number; readonly message: string };

/** JSON of an API server nests some 30 deep; deeper is somebody's attempt, and what walks it later would run out of stack. */
const MAX_DEPTH = 200;
/** A pod has some thousand. A parser takes 0.2 to 0.5 us for each: 3 MB of empty lists would hold it for 400 ms. */
const MAX_VALUES = 50_000;
const MAX_UID = 256;
/** Longer ones are cut by the API server, and all together may not be longer than 4096. */
const MAX_WARNING = 256;
const MAX_WARNINGS = 16;

/**
 * Reads an AdmissionReview of version v1.
 *
 * @throws AgentError ERR_PARSE with field and rule, where there is nothing that could be answered by its uid.
 */
export function parseAdmissionReview(body: Uint8Array): AdmissionRequest {
  const review = members(parseJson(body), 'body');
  if (review.apiVersion !== 'admission.k8s.io/v1')
    throw refused('apiVersion', 'must be admission.k8s.io/v1');
  if (review.kind !== 'AdmissionReview') throw refused('kind', 'must be AdmissionReview');
  const request = members(review.request, 'request');
  const uid = text(request.uid, 'request.uid');
  if (uid.length === 0 || uid.length > MAX_UID)
    throw refused('request.uid', `must have 1 to ${MAX_UID} characters`);
  const { group, version, kind } = members(request.kind, 'request.kind');
  const parts = [
    text(group ?? '', 'request.kind.group'),
    text(version, 'request.kind.version'),
    text(kind, 'request.kind.kind'),
  ];
  const { dryRun = false } = request;
  if (typeof dryRun !== 'boolean') throw refused('request.dryRun', 'must be true or false');
  return {
    uid,
    kind: parts.filter((part) => part !== '').join('/'),
    operation: text(request.operation, 'request.operation'),
    subResource: text(request.subResource ?? '', 'request.subResource'),
    namespace: text(request.namespace ?? '', 'request.namespace'),
    dryRun,
    object: request.object,
  };
}

/** The answer as JSON, an AdmissionReview of version v1. */
export function formatAdmissionReview(uid: string, verdict: Verdict): string {
  return JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    response: { uid, ...answerOf(verdict) },
  });
}

function answerOf(verdict: Verdict): object {
  if (verdict.kind === 'denied') {
    const { status, message } = verdict;
    return {
      allowed: false,
      status: { code: status, reason: status === 422 ? 'Invalid' : 'BadRequest', message },
    };
  }
  const { patch, warnings } = verdict;
  return {
    allowed: true,
    ...(patch.length > 0 && {
      patchType: 'JSONPatch',
      patch: Buffer.from(JSON.stringify(patch)).toString('base64'),
    }),
    ...(warnings.length > 0 && { warnings: warnings.slice(0, MAX_WARNINGS).map(shortened) }),
  };
}

function shortened(warning: string): string {
  return warning.length <= MAX_WARNING ? warning : `${warning.slice(0, MAX_WARNING - 3)}...`;
}

function parseJson(body: Uint8Array): unknown {
  let json: string;
  try {
    json = new TextDecoder('utf-8', { fatal: true }).decode(body);
  } catch {
    throw refused('body', 'must be UTF-8');
  }
  const { depth, values } = sizeOf(json);
  if (depth > MAX_DEPTH) throw refused('body', `must not be nested deeper than ${MAX_DEPTH}`);
  if (values > MAX_VALUES) throw refused('body', `must not hold more than ${MAX_VALUES} values`);
  try {
    return JSON.parse(json);
  } catch {
    // The parser's message would quote what somebody else wrote.
    throw refused('body', 'must be JSON');
  }
}

/** The deepest nesting of brackets outside strings, and how many values there are at most, whether or not the rest is JSON. */
function sizeOf(json: string): { readonly depth: number; readonly values: number } {
  let [depth, deepest, values] = [0, 0, 1];
  let quoted = false;
  for (let at = 0; at < json.length; at += 1) {
    const each = json.charCodeAt(at);
    if (quoted) {
      if (each === 0x5c) at += 1;
      else if (each === 0x22) quoted = false;
    } else if (each === 0x22) quoted = true;
    else if (each === 0x2c) values += 1;
    else if (each === 0x7b || each === 0x5b) {
      values += 1;
      depth += 1;
      deepest = Math.max(deepest, depth);
    } else if (each === 0x7d || each === 0x5d) depth -= 1;
  }
  return { depth: deepest, values };
}

function members(value: unknown, field: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw refused(field, 'must be an object');
  return value as Readonly<Record<string, unknown>>;
}

function text(value: unknown, field: string): string {
  if (typeof value !== 'string') throw refused(field, 'must be a string');
  return value;
}

function refused(field: string, rule: string): AgentError {
  return invalid('ERR_PARSE', field, rule);
}
