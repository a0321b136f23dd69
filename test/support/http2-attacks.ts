import { gzipSync } from 'node:zlib';
import { END_HEADERS, END_STREAM, frame, headerBlock, message, PREFACE, reset } from './raw-http2';

/** What a client of HTTP/2 can pour over a server, by what it is: the octets of its `index`th turn, after the preface and one open call. */
export type Attack = readonly [
  what: string,
  pour: (index: number, call: (stream: number, flags?: number) => Buffer) => Buffer,
];

const window = (bytes: number) => Buffer.from([bytes >>> 24, bytes >>> 16, bytes >>> 8, bytes]);
const setting = (id: number, value: number) => Buffer.concat([Buffer.from([0, id]), window(value)]);
const next = (index: number) => index * 2 + 3;

export const ATTACKS: readonly Attack[] = [
  [
    'calls that are reset at once',
    (index, call) => Buffer.concat([call(next(index)), reset(next(index))]),
  ],
  [
    'calls that are reset without an error',
    (index, call) => Buffer.concat([call(next(index)), reset(next(index), 0)]),
  ],
  [
    'whole calls that are reset',
    (index, call) =>
      Buffer.concat([
        call(next(index)),
        message(next(index), Buffer.alloc(0), { flags: END_STREAM }),
        reset(next(index)),
      ]),
  ],
  ['calls without a request', (index, call) => call(next(index), END_HEADERS | END_STREAM)],
  ['calls that never end', (index, call) => call(next(index))],
  [
    'malformed calls',
    (index) => frame('headers', next(index), headerBlock({ X: 'y' }), END_HEADERS),
  ],
  ['PING', () => frame('ping', 0, Buffer.alloc(8))],
  ['SETTINGS', () => frame('settings', 0)],
  [
    'SETTINGS of many windows',
    (index) =>
      frame(
        'settings',
        0,
        Buffer.concat([...Array(500)].map((_, each) => setting(4, (index + each) % 1_000))),
      ),
  ],
  ['WINDOW_UPDATE', () => frame('window', 0, window(1))],
  ['WINDOW_UPDATE of a stream', () => frame('window', 1, window(1))],
  ['PRIORITY', (index) => frame('priority', next(index), Buffer.alloc(5))],
  ['empty DATA', () => frame('data', 1)],
  [
    'DATA of padding',
    () => frame('data', 1, Buffer.concat([Buffer.of(200), Buffer.alloc(200)]), 0x8),
  ],
  ['DATA by the octet', () => frame('data', 1, Buffer.of(0))],
  ['messages of zeros', () => message(1, Buffer.alloc(1_000))],
  ['a bomb in gzip', () => message(1, gzipSync(Buffer.alloc(1_000_000)), { compressed: true })],
  [
    'CONTINUATION',
    (index) =>
      index === 0
        ? frame('headers', 3, headerBlock({ a: 'b' }))
        : frame('continuation', 3, headerBlock({ a: 'b' })),
  ],
  [
    'empty CONTINUATION',
    (index) =>
      index === 0 ? frame('headers', 3, headerBlock({ a: 'b' })) : frame('continuation', 3),
  ],
  [
    'headers out of a full table',
    (index, call) =>
      Buffer.concat([
        call(next(index)),
        frame('headers', next(index) + 2, largeReferences(index), END_HEADERS),
      ]),
  ],
  ['frames of no type', (index) => frame(50 + (index % 200), 0, Buffer.alloc(100))],
  ['GOAWAY', () => frame('goaway', 0, Buffer.alloc(8))],
];

/** A header of 3,900 octets for the table of HPACK, then that again and again by its index. */
function largeReferences(index: number): Buffer {
  if (index > 0) return Buffer.alloc(10_000, 0xbe);
  return Buffer.concat([Buffer.from([0x40, 1, 0x78, 0x7f, 0xbd, 0x1d]), Buffer.alloc(3_900, 0x79)]);
}

/** What such a client sends first: the preface and a call that stays open. */
export function opening(call: (stream: number) => Buffer): Buffer {
  return Buffer.concat([PREFACE, call(1)]);
}
