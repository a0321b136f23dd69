import { readFile } from 'node:fs/promises';

/**
 * A plugin for esbuild and for Bun that leaves out what no program of ours can reach.
 *
 * grpc-js can serve its own statistics, over Channelz and ORCA; that needs a parser of .proto files, 140 KB, which is not part of this
 * program. And its call, which runs on our HTTP/2, is parted from the runtime's.
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
      onLoad({ filter: /@grpc\/grpc-js\/build\/src\/subchannel-call\.js$/ }, async ({ path }) => ({
        contents: withoutHttp2(await readFile(path, 'utf8')),
        loader: 'js',
      }));
    },
  };
}

const HTTP2 = 'require("http2")';

/**
 * grpc-js's call with the constants of RFC 9113 in place of node:http2, of which it wants nothing else, and whose loading is 3 ms of a
 * start. test/contract/library-internals.test.ts holds them against it.
 */
export function withoutHttp2(source) {
  if (source.split(HTTP2).length !== 2)
    throw new Error(
      `subchannel-call.js of grpc-js must hold ${HTTP2} once: see scripts/lib/left-out.mjs`,
    );
  return source.replace(HTTP2, JSON.stringify({ constants: HTTP2_CONSTANTS }));
}

const HTTP2_CONSTANTS = {
  NGHTTP2_FLAG_END_STREAM: 1,
  NGHTTP2_NO_ERROR: 0,
  NGHTTP2_INTERNAL_ERROR: 2,
  NGHTTP2_REFUSED_STREAM: 7,
  NGHTTP2_CANCEL: 8,
  NGHTTP2_ENHANCE_YOUR_CALM: 11,
  NGHTTP2_INADEQUATE_SECURITY: 12,
};
