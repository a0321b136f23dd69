import { isAscii, isUtf8 } from 'node:buffer';
import {
  type DerElement,
  type DerReader,
  derElement,
  derOid,
  derSequence,
  derSet,
  readDer,
  TAG,
} from '../base/der';

/** A subject or issuer: its DER, by which names are compared, and a text for people. */
export interface Name {
  readonly der: Uint8Array;
  /** As written, first to last, e.g. `O=cluster.local, CN=root`; empty for the empty name. */
  readonly text: string;
  /** OIDs of the attributes present. */
  readonly types: readonly string[];
}

const SHORT_NAMES: Readonly<Record<string, string>> = {
  '2.5.4.3': 'CN',
  '2.5.4.5': 'serialNumber',
  '2.5.4.6': 'C',
  '2.5.4.7': 'L',
  '2.5.4.8': 'ST',
  '2.5.4.10': 'O',
  '2.5.4.11': 'OU',
  '0.9.2342.19200300.100.1.25': 'DC',
  '1.2.840.113549.1.9.1': 'emailAddress',
};

/** The OID of commonName. */
export const COMMON_NAME = '2.5.4.3';
const MAX_ATTRIBUTES = 64;

/** A Name without attributes. */
export const EMPTY_NAME: Uint8Array = derSequence();

/** One empty `O`, the subject of every CSR that istio-agent makes; the RA of istiod compares requests with exactly this. */
export const EMPTY_ORGANISATION: Uint8Array = encodeName([['O', '']]);

/** Writes a Name: one attribute to an RDN, in order. Keys are short names such as `O` and `CN`. */
export function encodeName(
  attributes: readonly (readonly [type: 'O' | 'OU' | 'CN', value: string])[],
): Uint8Array {
  return derSequence(
    ...attributes.map(([type, value]) => {
      const [oid] = Object.entries(SHORT_NAMES).find(([, short]) => short === type)!;
      const printable = /^[A-Za-z0-9 '()+,\-./:=?]*$/.test(value);
      return derSet(
        derSequence(
          derOid(oid),
          derElement(printable ? TAG.printableString : TAG.utf8String, Buffer.from(value)),
        ),
      );
    }),
  );
}

/** Reads the Name that is next. */
export function readName(reader: DerReader, name: string): Name {
  const element = reader.element(name, TAG.sequence);
  const types: string[] = [];
  const readAttribute = (attribute: DerReader) => {
    const type = attribute.oid(name);
    types.push(type);
    const text = valueText(attribute.any(name));
    if (text === undefined) throw attribute.refuse(name, 'must have strings as values');
    return `${SHORT_NAMES[type] ?? type}=${printable(text)}`;
  };
  const readPart = (set: DerReader) => {
    const texts = set.list(name, MAX_ATTRIBUTES, (attributes) =>
      attributes.sequence(name, readAttribute),
    );
    if (texts.length === 0) throw set.refuse(name, 'must not have an empty part');
    return texts.join(' + ');
  };
  const parts = reader.inside(name, element, (names) =>
    names.list(name, MAX_ATTRIBUTES, (sets) => sets.enter(name, TAG.set, readPart)),
  );
  return { der: element.der, text: parts.join(', '), types };
}

const comparable = new WeakMap<Uint8Array, string>();

/**
 * A Name, read before, as BoringSSL compares names: of texts neither the kind of string, nor the case of ASCII letters, nor how many spaces
 * there are makes a difference. OpenSSL does the same; RFC 5280 section 7.1 wishes more of that kind.
 *
 * @see BoringSSL crypto/x509/x509_name.cc, x509_name_canon.
 */
export function comparableName(der: Uint8Array): string {
  const known = comparable.get(der) ?? readComparable(der);
  comparable.set(der, known);
  return known;
}

function readComparable(der: Uint8Array): string {
  const name = 'name';
  const readAttribute = (attribute: DerReader) => {
    const type = attribute.oid(name);
    const value = attribute.any(name);
    const text = value.tag === TAG.numericString ? undefined : valueText(value);
    return JSON.stringify([
      type,
      text === undefined ? [value.tag, Buffer.from(value.content).toString('hex')] : folded(text),
    ]);
  };
  const readPart = (set: DerReader) =>
    set.list(name, MAX_ATTRIBUTES, (each) => each.sequence(name, readAttribute)).sort();
  const readParts = (names: DerReader) =>
    names.list(name, MAX_ATTRIBUTES, (sets) => sets.enter(name, TAG.set, readPart));
  return JSON.stringify(readDer(der, name, (reader) => reader.sequence(name, readParts)));
}

function folded(text: string): string {
  const spaced = text.replace(/[ \t\n\v\f\r]+/g, ' ').replace(/^ | $/g, '');
  return spaced.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

/** The text of a DirectoryString or IA5String; undefined where it is neither, or its octets are not of its alphabet. */
function valueText({ tag, content }: DerElement): string | undefined {
  const bytes = Buffer.from(content);
  switch (tag) {
    case TAG.utf8String:
      return isUtf8(bytes) ? bytes.toString('utf8') : undefined;
    case TAG.printableString:
    case TAG.numericString:
    case TAG.ia5String:
      return isAscii(bytes) ? bytes.toString('latin1') : undefined;
    case TAG.teletexString:
      return bytes.toString('latin1');
    case TAG.bmpString:
      return fixedWidthText(bytes, 2);
    case TAG.universalString:
      return fixedWidthText(bytes, 4);
    default:
      return undefined;
  }
}

/** Characters of `width` octets each, most significant first; undefined where one of them is none: OpenSSL refuses the certificate then. */
function fixedWidthText(bytes: Buffer, width: number): string | undefined {
  if (bytes.length % width !== 0) return undefined;
  let text = '';
  for (let at = 0; at < bytes.length; at += width) {
    const point = bytes.readUIntBE(at, width);
    if (point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) return undefined;
    text += String.fromCodePoint(point);
  }
  return text;
}

/** Control and direction characters become escapes: a name is a stranger's text on somebody's terminal. */
function printable(text: string): string {
  return text.replace(
    /[\p{C}\p{Zl}\p{Zp},+=\\]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}
