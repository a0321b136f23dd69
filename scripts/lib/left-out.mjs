/**
 * A plugin for esbuild and for Bun that leaves out what no program of ours can reach. grpc-js can serve its own statistics, over Channelz
 * and ORCA; that needs a parser of .proto files, 140 KB, which is not part of this program. What makes clients of parsed files goes with it:
 * else a server of ours would load all of grpc-js's client at each start, for 3 ms and 0.7 MB.
 */
export function withoutStatistics() {
  return {
    name: 'without-statistics',
    setup({ onResolve, onLoad }) {
      const leftOut = (path) => ({ path, namespace: 'left-out' });
      onResolve({ filter: /^@grpc\/proto-loader$/ }, ({ path }) => leftOut(path));
      onResolve({ filter: /^\.\/make-client$/ }, ({ path, importer }) =>
        /\/grpc-js\/build\/src\/(channelz|orca)\.js$/.test(importer) ? leftOut(path) : undefined,
      );
      onLoad({ filter: /.*/, namespace: 'left-out' }, () => ({ contents: 'module.exports = {};', loader: 'js' }));
    },
  };
}
