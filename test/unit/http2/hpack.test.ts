import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { HpackDecoder, HpackEncoder } from '../../../agent/http2/hpack';
import { Http2Error } from '../../../agent/http2/http2-error';

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');
const decoder = () => new HpackDecoder(32 * 1024);

describe('RFC 7541 appendix C', () => {
  const requests = [
    [
      [':method', 'GET'],
      [':scheme', 'http'],
      [':path', '/'],
      [':authority', 'www.example.com'],
    ],
    [
      [':method', 'GET'],
      [':scheme', 'http'],
      [':path', '/'],
      [':authority', 'www.example.com'],
      ['cache-control', 'no-cache'],
    ],
    [
      [':method', 'GET'],
      [':scheme', 'https'],
      [':path', '/index.html'],
      [':authority', 'www.example.com'],
      ['custom-key', 'custom-value'],
    ],
  ];

  test.each<[string, readonly string[]]>([
    [
      'C.3 without Huffman coding',
      [
        '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
        '8286 84be 5808 6e6f 2d63 6163 6865',
        '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65',
      ],
    ],
    [
      'C.4 with Huffman coding',
      [
        '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff',
        '8286 84be 5886 a8eb 1064 9cbf',
        '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf',
      ],
    ],
  ])('%s: three requests on one connection', (_what, blocks) => {
    const hpack = decoder();
    expect(blocks.map((block) => hpack.decode(hex(block)))).toEqual(requests);
  });

  test('C.2.4 an indexed field, and a length of several octets', () => {
    expect(decoder().decode(hex('82'))).toEqual([[':method', 'GET']]);
    // C.1.2: 1337 in a prefix of five bits is 1f 9a 0a; in one of seven bits 7f ba 09.
    const value = 'x'.repeat(1_337);
    expect(decoder().decode(Buffer.concat([hex('00 01 61 7f ba 09'), Buffer.from(value)]))).toEqual(
      [['a', value]],
    );
  });
});

test.each<[string, Buffer]>([
  ['index 0', hex('80')],
  ['an index of nothing', hex('be')],
  ['a number without end', hex('ff ffffffffff')],
  ['a number beyond bounds', hex('ff 80808080 7f')],
  ['a text that is cut off', hex('00 01 61 05 78')],
  ['a block that is cut off', hex('40')],
  ['a larger table than allowed', hex('3f e2 1f')],
  ['a change of the table after a field', hex('82 20')],
  ['Huffman padding of zeros', hex('00 01 61 81 18')],
  ['Huffman padding of a whole octet', hex('00 01 61 82 1f ff')],
  ['the end mark of Huffman', hex('00 01 61 84 ff ff ff ff')],
])('%s is refused as COMPRESSION_ERROR', (_what, block) => {
  expect(() => decoder().decode(block)).toThrow(Http2Error);
});

test('fields that are encoded here are read alike, whatever they hold', () => {
  const text = fc
    .uint8Array({ maxLength: 300 })
    .map((bytes) => Buffer.from(bytes).toString('latin1'));
  fc.assert(
    fc.property(fc.array(fc.tuple(text, text), { maxLength: 5 }), (fields) => {
      expect(decoder().decode(new HpackEncoder().encode(fields))).toEqual(fields);
    }),
    { numRuns: 300 },
  );
});

test('any octets are fields or a refusal, and a table of any history takes no more than its bound', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 5 }), (blocks) => {
      const hpack = decoder();
      for (const block of blocks) {
        try {
          hpack.decode(block);
        } catch (caught) {
          expect(caught).toBeInstanceOf(Http2Error);
        }
      }
    }),
    { numRuns: 2_000 },
  );
});

test('a list beyond the bound is no list, and the next block is read all the same', () => {
  const hpack = new HpackDecoder(100);
  // x-a: 4,000 octets into the table, then referred to a thousand times.
  const large = Buffer.concat([hex('40 03 782d61 7f a1 1e'), Buffer.alloc(4_000, 'v')]);
  expect(hpack.decode(large)).toBeUndefined();
  expect(hpack.decode(Buffer.alloc(1_000, 0xbe))).toBeUndefined();
  expect(hpack.decode(hex('83'))).toEqual([[':method', 'POST']]);
});
