import { cidrRange } from '../authz/cidr';
import { attributeOf } from '../authz/conditions';
import { isObject, notName, objectOf, objectsOf, textOf, textsOf } from '../resources/fields';
import type { FieldPath, Json, JsonObject } from '../resources/resource';
import { type Check, MAX_PORT } from './check';
import { checkSelection } from './selection';

/** @see istio pkg/config/validation ValidateAuthorizationPolicy */
export function checkAuthorizationPolicy(check: Check): void {
  checkSelection(check);
  const { spec } = check.resource;
  const action = textOf(spec.action) ?? 'ALLOW';
  if ((action === 'DENY' || action === 'CUSTOM') && objectsOf(spec.rules).length === 0)
    check.refuse(
      ['spec', 'rules'],
      `must be there: ${action} without rules never applies`,
      'write rules: [{}] for every request',
    );
  checkProvider(check, action);
  for (const { item, at } of check.each(spec.rules, ['spec', 'rules'])) {
    checkSources(check, item, at);
    checkOperations(check, item, at);
    for (const { item: when, at: path } of check.each(item.when, [...at, 'when']))
      checkCondition(check, when, path);
    if (action === 'CUSTOM') checkCustomRule(check, item, at);
  }
}

function checkProvider(check: Check, action: string): void {
  const { provider } = check.resource.spec;
  if (action === 'CUSTOM') check.needed(objectOf(provider).name, ['spec', 'provider', 'name']);
  else if (isObject(provider))
    check.refuse(['spec', 'provider'], `must not stand in a policy of action ${action}`);
}

/** An identity or an address that asks. */
const SOURCE_FIELDS: Readonly<Record<string, FieldCheck>> = {
  principals: checkNothing,
  requestPrincipals: checkNothing,
  namespaces: checkNothing,
  serviceAccounts: checkServiceAccount,
  trustDomains: checkTrustDomain,
  ipBlocks: checkIp,
  remoteIpBlocks: checkIp,
};
const OPERATION_FIELDS: Readonly<Record<string, FieldCheck>> = {
  hosts: checkNothing,
  methods: checkNothing,
  paths: checkPath,
  ports: checkPort,
};

/** What a value must be, to be read behind its path. */
type FieldCheck = (value: string) => string | undefined;

function checkSources(check: Check, rule: JsonObject, at: FieldPath): void {
  checkNotEmpty(check, rule.from, [...at, 'from']);
  for (const { item, at: path } of check.each(rule.from, [...at, 'from'])) {
    const source = [...path, 'source'];
    checkFields(check, item.source, source, SOURCE_FIELDS);
    const has = (...names: string[]) => names.some((name) => has1(item.source, name));
    if (has('serviceAccounts') && has('principals', 'namespaces'))
      check.refuse(source, 'must not set serviceAccounts with namespaces or principals');
    for (const name of ['serviceAccounts', 'notServiceAccounts'])
      checkAccountCount(check, objectOf(item.source)[name], [...source, name]);
  }
}

const MAX_ACCOUNTS = 16;

function checkAccountCount(check: Check, values: Json | undefined, at: FieldPath): void {
  if (textsOf(values).length > MAX_ACCOUNTS)
    check.refuse(at, `must not have more than ${MAX_ACCOUNTS}`);
}

function has1(fields: Json | undefined, name: string): boolean {
  const of = objectOf(fields);
  return textsOf(of[name]).length > 0 || textsOf(of[notName(name)]).length > 0;
}

function checkOperations(check: Check, rule: JsonObject, at: FieldPath): void {
  checkNotEmpty(check, rule.to, [...at, 'to']);
  for (const { item, at: path } of check.each(rule.to, [...at, 'to']))
    checkFields(check, item.operation, [...path, 'operation'], OPERATION_FIELDS);
}

function checkNotEmpty(check: Check, list: Json | undefined, at: FieldPath): void {
  if (Array.isArray(list) && list.length === 0)
    check.refuse(at, 'must not be empty', 'leave it out for everything');
}

function checkFields(
  check: Check,
  fields: Json | undefined,
  at: FieldPath,
  known: Readonly<Record<string, FieldCheck>>,
): void {
  const names = Object.keys(known).flatMap((name) => [name, notName(name)]);
  if (!isObject(fields) || !names.some((name) => textsOf(fields[name]).length > 0)) {
    check.refuse(at, 'must not be empty', `name one of ${Object.keys(known).join(', ')}`);
    return;
  }
  for (const [name, rule] of Object.entries(known))
    for (const field of [name, notName(name)])
      for (const { text, at: path } of check.texts(fields[field], [...at, field])) {
        const problem = text === '' ? undefined : rule(text);
        if (problem !== undefined) check.refuse(path, problem);
      }
}

function checkCondition(check: Check, condition: JsonObject, at: FieldPath): undefined {
  const key = textOf(condition.key);
  if (key === undefined) return check.refuse([...at, 'key'], 'must not be empty');
  if (!attributeOf(key))
    return check.refuse([...at, 'key'], `${key} is no attribute`, MOVED.get(key));
  if (/^(request\.headers|request\.auth\.claims|experimental\.)/.test(key) && !/\[.+\]$/.test(key))
    check.refuse([...at, 'key'], `${key} must end in a name in brackets, such as [name]`);
  const rule = CONDITION_VALUES.get(key) ?? checkNothing;
  const [values, notValues] = (['values', 'notValues'] as const).map((name) =>
    check.texts(condition[name], [...at, name]),
  ) as [ReturnType<Check['texts']>, ReturnType<Check['texts']>];
  if (values.length + notValues.length === 0) check.refuse(at, 'must have values or notValues');
  if (key === 'source.serviceAccount')
    for (const name of ['values', 'notValues'])
      checkAccountCount(check, condition[name], [...at, name]);
  for (const { text, at: path } of [...values, ...notValues]) {
    const problem = text === '' ? undefined : rule(text);
    if (problem !== undefined) check.refuse(path, problem);
  }
}

const MOVED = new Map([
  ['destination.namespace', 'policies are of the namespace of metadata.namespace'],
  ['destination.labels', 'write spec.selector.matchLabels'],
]);

const CONDITION_VALUES: ReadonlyMap<string, FieldCheck> = new Map([
  ['source.ip', checkIp],
  ['remote.ip', checkIp],
  ['destination.ip', checkIp],
  ['destination.port', checkPort],
  ['source.trustDomain', checkTrustDomain],
  ['source.serviceAccount', checkServiceAccount],
]);

/** An external authorizer is asked before tokens are read, and by addresses and operations only. */
function checkCustomRule(check: Check, rule: JsonObject, at: FieldPath): void {
  const refused = [
    'namespaces',
    'serviceAccounts',
    'trustDomains',
    'principals',
    'requestPrincipals',
  ];
  for (const [index, { source }] of objectsOf(rule.from).entries())
    for (const name of refused)
      if (has1(source, name))
        check.refuse([...at, 'from', index, 'source', name], 'must not stand in a CUSTOM policy');
  for (const [index, { key }] of objectsOf(rule.when).entries())
    if (
      /^(source\.(namespace|serviceAccount|trustDomain|principal)$|request\.auth\.)/.test(
        String(key),
      )
    )
      check.refuse(
        [...at, 'when', index, 'key'],
        `${String(key)} must not stand in a CUSTOM policy`,
      );
}

function checkNothing(): undefined {
  return undefined;
}

function checkIp(value: string): string | undefined {
  return cidrRange(value) ? undefined : 'must be an address or a CIDR block';
}

function checkPort(value: string): string | undefined {
  return /^\d{1,5}$/.test(value) && Number(value) <= MAX_PORT
    ? undefined
    : `must be a port, at most ${MAX_PORT}`;
}

function checkTrustDomain(value: string): string | undefined {
  if (value.includes('/')) return 'must be a trust domain, without a /';
  const stars = value.split('*').length - 1;
  const isAtEdge = value === '*' || value.startsWith('*') || value.endsWith('*');
  return stars === 0 || (stars === 1 && isAtEdge)
    ? undefined
    : 'must have at most one *, at its start or end';
}

const MAX_ACCOUNT_LENGTH = 320;

function checkServiceAccount(value: string): string | undefined {
  if (value.includes('*')) return 'must not have a wildcard';
  if (value.length > MAX_ACCOUNT_LENGTH)
    return `must not be longer than ${MAX_ACCOUNT_LENGTH} characters`;
  return /^[^/]+(\/[^/]+)?$/.test(value) ? undefined : 'must be ACCOUNT or NAMESPACE/ACCOUNT';
}

/** Envoy's URI templates: `{*}` is one segment, `{**}` the rest, each a segment of its own. */
function checkPath(value: string): string | undefined {
  const isTemplate = /\{\*\*?\}/.test(value);
  let isPastAny = false;
  for (const segment of value.replace(/^\/+|\/+$/g, '').split('/')) {
    if (segment === '{*}' || segment === '{**}') {
      if (isPastAny) return 'has an operator behind {**}, which must be the last';
      isPastAny = segment === '{**}';
    } else if (/[{}]/.test(segment)) return 'must have { and } only as {*} or {**} between slashes';
    else if (isTemplate && !/^[a-zA-Z0-9\-._~%!$&'()+,;:@=]+$/.test(segment))
      return `is a template whose segment ${segment} is no plain text`;
  }
  return undefined;
}
