import { BlockList } from 'node:net';
import { cidrRange } from '../authz/cidr';
import { type AuthzRule, isOfToken, type RuleField } from './fields';

type Fields = readonly RuleField[];

/**
 * The alternatives of a rule, each with one value in every field, as far as there are few of them: what
 * two other rules take together is then found.
 */
export function cases(rule: AuthzRule): readonly Fields[] {
  return rule.alternatives.flatMap(split);
}

const MANY = 64;

function split(fields: Fields): readonly Fields[] {
  const positive = fields.filter(({ isNegative }) => !isNegative);
  const count = positive.reduce((product, { values }) => product * values.length, 1);
  if (count > MANY) return [fields];
  return fields.reduce<readonly Fields[]>(
    (found, field) =>
      field.isNegative
        ? found.map((each) => [...each, field])
        : field.values.flatMap((value) =>
            found.map((each) => [...each, { ...field, values: [value] }]),
          ),
    [[]],
  );
}

/** Whether whatever has the inner fields has the outer ones too. Says no where it cannot be told. */
export function covers(outer: Fields, inner: Fields): boolean {
  return outer.every((field) =>
    field.isNegative ? excludes(inner, field) : inner.some((each) => isWithin(each, field)),
  );
}

function isWithin(inner: RuleField, outer: RuleField): boolean {
  return (
    !inner.isNegative &&
    inner.attribute === outer.attribute &&
    inner.values.every((value) =>
      outer.values.some((pattern) => takes(outer.attribute, pattern, value)),
    )
  );
}

/** Whether the inner fields leave out each value that the outer field leaves out. */
function excludes(inner: Fields, outer: RuleField): boolean {
  return outer.values.every((value) =>
    inner.some(
      (each) =>
        each.attribute === outer.attribute &&
        (each.isNegative
          ? each.values.some((pattern) => takes(outer.attribute, pattern, value))
          : hasOneValue(each) && each.values.every((own) => isApart(own, value))),
    ),
  );
}

/** A claim may be a list, which holds a value and another one too. */
const hasOneValue = (field: RuleField) =>
  !isOfToken(field) && !ADDRESSES.has(field.attribute) && field.attribute !== 'request.path';

export const isOfAddress = (attribute: string) => ADDRESSES.has(attribute);
const ADDRESSES = new Set(['source.ip', 'remote.ip', 'destination.ip']);

function isApart(one: string, other: string): boolean {
  return !`${one}${other}`.includes('*') && one.toLowerCase() !== other.toLowerCase();
}

/** Whether a pattern takes everything that a value, which may be a pattern too, takes. */
function takes(attribute: string, pattern: string, value: string): boolean {
  if (pattern === value) return true;
  if (ADDRESSES.has(attribute)) return holdsBlock(pattern, value);
  if (attribute === 'destination.port') return Number(pattern) === Number(value);
  if (attribute.startsWith('experimental.')) return false;
  return attribute === 'request.host'
    ? takesText(pattern.toLowerCase(), value.toLowerCase())
    : takesText(pattern, value);
}

function takesText(pattern: string, value: string): boolean {
  if (pattern === '*') return true;
  if (pattern === value) return true;
  // Templates and globs take what only they know.
  if (/\{/.test(pattern) || pattern.slice(1, -1).includes('*')) return false;
  if (pattern.startsWith('*'))
    return !isOpenAtEnd(value) && value.replace(/^\*/, '').endsWith(pattern.slice(1));
  if (pattern.endsWith('*')) return fixedStart(value).startsWith(pattern.slice(0, -1));
  return false;
}

const isOpenAtEnd = (value: string) => value.endsWith('*') || value.endsWith('}');

/** What everything that a value takes begins with. */
function fixedStart(value: string): string {
  return value.replace(/[*{].*$/s, '');
}

function holdsBlock(outer: string, inner: string): boolean {
  const [around, within] = [cidrRange(outer), cidrRange(inner)];
  if (!around || !within || Number(around.prefixLen) > Number(within.prefixLen)) return false;
  const family = (text: unknown) => (String(text).includes(':') ? 'ipv6' : 'ipv4');
  if (family(around.addressPrefix) !== family(within.addressPrefix)) return false;
  const block = new BlockList();
  block.addSubnet(
    String(around.addressPrefix),
    Number(around.prefixLen),
    family(around.addressPrefix),
  );
  return block.check(String(within.addressPrefix), family(within.addressPrefix));
}
