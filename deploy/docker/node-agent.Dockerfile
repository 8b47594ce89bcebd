# Build from the root of the source tree:
#   docker build -f deploy/docker/node-agent.Dockerfile -t <registry>/node-agent:<tag> .
FROM rust:1.95-trixie AS build
WORKDIR /src
COPY . .
# The caches outlive the layer; the binary must be copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p pilotlight-node-agent --bins \
    && cp target/release/pilotlight-node-agent /pilotlight-node-agent

# glibc of the same Debian release, CA certificates, no shell.
FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /pilotlight-node-agent /usr/local/bin/pilotlight-node-agent
# The `api` container; the chart gives the `host` container user 0, without capabilities.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/pilotlight-node-agent"]
