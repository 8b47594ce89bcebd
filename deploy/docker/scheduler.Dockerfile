# Build from the root of the source tree:
#   docker build -f deploy/docker/scheduler.Dockerfile -t <registry>/scheduler:<tag> .
FROM rust:1.95-trixie AS build
WORKDIR /src
COPY . .
# The caches outlive the layer; the binary must be copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p pilotlight-scheduler --bins \
    && cp target/release/pilotlight-scheduler /pilotlight-scheduler

# glibc of the same Debian release, CA certificates, no shell.
FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /pilotlight-scheduler /usr/local/bin/pilotlight-scheduler
# Numeric, so that the kubelet can check that it is not root.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/pilotlight-scheduler"]
