import { isIP } from 'node:net';
import { isObject } from '../resources/fields';
import type { FieldPath, Json } from '../resources/resource';
import type { Check } from './check';

/** RFC 1123, with capitals as Istio has them. */
const LABEL = '[a-zA-Z0-9](?:[-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?';
const IS_LABEL = new RegExp(`^${LABEL}$`);
const IS_WILDCARD_LABEL = new RegExp(`^(\\*|(\\*|\\*-)?${LABEL})$`);
const MAX_HOST = 255;

export function isDnsLabel(text: string): boolean {
  return IS_LABEL.test(text);
}

/** A host name in full, a dot at its end or not. */
export function isHostName(text: string): boolean {
  const labels = text.replace(/\.$/, '').split('.');
  return text.length <= MAX_HOST && labels.every(isDnsLabel) && !/^\d+$/.test(labels.at(-1)!);
}

/** The same, of which the first label may be `*` or begin with it. */
export function isWildcardHost(text: string): boolean {
  const [first = '', ...rest] = text.split('.');
  return (
    text.length <= MAX_HOST &&
    IS_WILDCARD_LABEL.test(first) &&
    (rest.length === 0 || isHostName(rest.join('.')))
  );
}

/** What istiod knows; without one the protocol is found out. */
const PROTOCOLS = new Set([
  'tcp',
  'udp',
  'grpc',
  'grpc-web',
  'http',
  'http_proxy',
  'http2',
  'https',
  'tls',
  'mongo',
  'redis',
  'mysql',
]);

export function checkProtocol(check: Check, value: Json | undefined, at: FieldPath): void {
  if (typeof value !== 'string' || value === '' || PROTOCOLS.has(value.toLowerCase())) return;
  check.refuse(at, `${value} is no protocol`, `known: ${[...PROTOCOLS].join(', ')}`);
}

export function checkPortName(check: Check, value: Json | undefined, at: FieldPath): void {
  if (typeof value !== 'string' || !isDnsLabel(value))
    check.refuse(at, 'must be a DNS label: letters, digits and -, at most 63');
}

const QUALIFIED = '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]';
const LABEL_NAME = new RegExp(`^(${LABEL}(?:\\.${LABEL})*/)?${QUALIFIED}$`);
const LABEL_VALUE = new RegExp(`^(${QUALIFIED})?$`);

/** Labels that something has, rather than those that select it. */
export function checkLabels(check: Check, value: Json | undefined, at: FieldPath): void {
  for (const [name, label] of Object.entries(isObject(value) ? value : {}))
    if (!LABEL_NAME.test(name) || !LABEL_VALUE.test(String(label)))
      check.refuse([...at, name], 'is no label that Kubernetes takes');
}

/** An absolute path, or the name of an abstract socket. */
export function isUnixAddress(text: string): boolean {
  return /^unix:\/\/(@|\/.*[^/]$)/s.test(text);
}

/** Without the zone of a link. */
export function isAddress(text: string): boolean {
  return isIP(text) !== 0 && !text.includes('%');
}

/** To whom a resource is shown: `.`, `*` alone, or namespaces; `~` where nobody is allowed. */
export function checkExportTo(
  check: Check,
  value: Json | undefined,
  allowed: { readonly nobody: boolean },
): void {
  const { namespace } = check.resource;
  const path = ['spec', 'exportTo'];
  const all = Array.isArray(value) ? value.map(String) : [];
  const seen = new Set<string>();
  for (const [index, each] of all.entries()) {
    const name = each === '.' ? namespace : each;
    if (seen.has(name)) check.refuse([...path, index], 'stands there twice');
    seen.add(name);
    const isKnown = name === '*' || (name === '~' && allowed.nobody) || isDnsLabel(name);
    if (!isKnown) check.refuse([...path, index], 'must be a namespace, . or *');
  }
  if (all.length > 1 && (seen.has('*') || seen.has('~')))
    check.refuse(path, 'must not have * or ~ beside others');
}
