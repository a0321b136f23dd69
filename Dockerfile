# syntax=docker/dockerfile:1
#
# keyturn in an image without a shell: one runtime, one program, no package manager.
#
#   docker build -t keyturn .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges \
#     --tmpfs /run:uid=1337,gid=1337,mode=0755 -v keyturn-ca:/var/lib/keyturn keyturn run --ca builtin
#
# It runs as 1337:1337, the user of Istio's proxy, so that an Envoy beside it may open a socket of mode 0600. It writes to two places:
# /run (the SDS socket in secrets/workload-spiffe-uds, the control socket in keyturn; /var/run is a link to it) and, with the built-in CA
# or --state-dir, /var/lib/keyturn. The root file system may be read-only, every capability dropped, and the default seccomp profile kept.
# Health and metrics listen on loopback; for probes from outside the container add --admin-address 0.0.0.0:15020.

ARG BUILD_IMAGE=docker.io/library/node:22-bookworm-slim
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
# Packages first: they change less often than sources.
COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json ./
COPY scripts scripts
COPY agent agent
COPY ca-client ca-client
COPY sds sds
RUN scripts/build
# What the final image gets, with its owners and modes. The runtime is the one that package-lock.json pins and the tests ran on.
RUN install -D -m 0755 node_modules/node/bin/node /image/usr/local/bin/node \
 && install -D -m 0755 dist/keyturn /image/usr/local/bin/keyturn \
 && install -D -m 0644 dist/keyturn.LICENSES.txt /image/usr/local/share/doc/keyturn/LICENSES.txt \
 && install -D -m 0644 node_modules/node/node_modules/node-linux-*/LICENSE /image/usr/local/share/doc/node/LICENSE \
 && install -d -m 0755 -o 1337 -g 1337 /image/run/keyturn /image/run/secrets/workload-spiffe-uds \
 && install -d -m 0700 -o 1337 -g 1337 /image/var/lib/keyturn

FROM ${RUNTIME_IMAGE}
COPY --from=build /image/ /
# One malloc arena: the agent's work is on one thread.
ENV MALLOC_ARENA_MAX=1
# Relative paths of the settings are relative to this.
WORKDIR /
USER 1337:1337
EXPOSE 15020
STOPSIGNAL SIGTERM
# Asks the control socket; 75 while there is no certificate, 69 while nobody answers.
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s CMD ["/usr/local/bin/node", "/usr/local/bin/keyturn", "status", "--output", "json"]
ENTRYPOINT ["/usr/local/bin/node", "/usr/local/bin/keyturn"]
CMD ["run"]
