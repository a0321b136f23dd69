import { readFile } from 'node:fs/promises';

/**
 * A plugin for esbuild and for Bun that leaves out what no program of ours can reach. grpc-js can serve its own statistics, over Channelz
 * and ORCA; that needs a parser of .proto files, 140 KB, which is not part of this program.
 */
export function leftOut() {
  return {
    name: 'left-out',
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /^@grpc\/proto-loader$/ }, ({ path }) => ({
        path,
        namespace: 'left-out',
      }));
      onLoad({ filter: /.*/, namespace: 'left-out' }, () => ({
        contents: 'module.exports = {};',
        loader: 'js',
      }));
      for (const { filter } of PARTED)
        onLoad({ filter }, async ({ path }) => ({
          contents: parted(path, await readFile(path, 'utf8')),
          loader: 'js',
        }));
    },
  };
}

/**
 * Modules of the runtime that a package asks for and has no use for here, with what takes their place: each costs a start up to 3 ms.
 * test/contract/library-internals.test.ts holds them against the packages.
 */
const PARTED = [
  {
    // Its call, which runs on our HTTP/2, wants constants of RFC 9113, and names errors in its traces.
    filter: /@grpc\/grpc-js\/build\/src\/subchannel-call\.js$/,
    instead: [
      [
        'require("http2")',
        {
          constants: {
            NGHTTP2_FLAG_END_STREAM: 1,
            NGHTTP2_NO_ERROR: 0,
            NGHTTP2_INTERNAL_ERROR: 2,
            NGHTTP2_REFUSED_STREAM: 7,
            NGHTTP2_CANCEL: 8,
            NGHTTP2_ENHANCE_YOUR_CALM: 11,
            NGHTTP2_INADEQUATE_SECURITY: 12,
          },
        },
      ],
      ['require("os")', { constants: { errno: {} } }],
    ],
  },
  {
    // Commands of ours are no programs of their own.
    filter: /commander\/lib\/command\.js$/,
    instead: [["require('node:child_process')", {}]],
  },
];

/** A file of a package with what takes the place of those modules. */
export function parted(path, source) {
  const { instead } = PARTED.find(({ filter }) => filter.test(path));
  return instead.reduce((text, [wanted, value]) => {
    if (text.split(wanted).length !== 2)
      throw new Error(`${path} must hold ${wanted} once: see scripts/lib/left-out.mjs`);
    return text.replace(wanted, `(${JSON.stringify(value)})`);
  }, source);
}
